//! What a client knows of a job it follows. No I/O.

use std::time::{Duration, Instant};

use tonic::Code;

use crate::error::Error;
use crate::v1::job_event::Event;
use crate::v1::{Job, JobEvent, JobState, QuantizationResult};

/// How a job stream behaves when it loses its connection.
///
/// Pauses grow from `initial_delay` to `max_delay` by doubling; each is shortened by a random part,
/// up to half of it, so that clients don't all come back at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// First pause.
    pub initial_delay: Duration,
    /// Longest pause.
    pub max_delay: Duration,
    /// Time without any event after which the stream gives up; zero never reconnects.
    pub timeout: Duration,
}

impl Default for Reconnect {
    /// Pauses from 0.2 to 10 seconds; gives up after two minutes.
    fn default() -> Self {
        Self {
            initial_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(10),
            timeout: Duration::from_secs(120),
        }
    }
}

/// Keeps a job up to date from its events, and decides what is new, lost, and over.
pub(crate) struct Follower {
    job: Job,
    last_sequence: u64,
    over: bool,
    reconnect: Reconnect,
    attempts: u32,
    lost_at: Option<Instant>,
}

impl Follower {
    pub fn new(reconnect: Reconnect, last_sequence: u64) -> Self {
        Self {
            job: Job::default(),
            last_sequence,
            over: false,
            reconnect,
            attempts: 0,
            lost_at: None,
        }
    }

    pub fn job(&self) -> &Job {
        &self.job
    }

    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Whether the last event was seen.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Takes an event in; says whether it is new.
    pub fn accept(&mut self, event: &JobEvent) -> bool {
        let Some(happened) = &event.event else {
            return false;
        };
        // A heartbeat is not stored and carries the sequence of the event before it.
        if !matches!(happened, Event::Heartbeat(_)) && event.sequence <= self.last_sequence {
            return false;
        }
        self.attempts = 0;
        self.lost_at = None;
        self.last_sequence = self.last_sequence.max(event.sequence);
        match happened {
            Event::Snapshot(job) => {
                self.job = job.clone();
                self.over = is_final(job.state());
            }
            Event::Stage(stage) => {
                let progress = self.job.progress.get_or_insert_default();
                progress.set_stage(stage.stage());
            }
            Event::Tensor(tensor) => self.job.progress = tensor.progress,
            Event::Heartbeat(heartbeat) => self.job.progress = heartbeat.progress,
            Event::Warning(finding) => self.job.findings.push(finding.clone()),
        }
        self.job.last_sequence = self.last_sequence;
        true
    }

    /// Takes in the job as `GetJob` returns it.
    ///
    /// It is over if it is in a final state and its last event was seen: a stream that asks for
    /// what comes after that has nothing to say and simply ends.
    pub fn see(&mut self, job: Job) {
        self.over = is_final(job.state()) && job.last_sequence == self.last_sequence;
        self.job = job;
    }

    /// Time to wait before attaching again after `error`.
    ///
    /// `random` from 0 to 1 shortens it. Gives the error back when it is the server's answer, or
    /// when the silence has lasted too long.
    pub fn pause_after(
        &mut self,
        error: Error,
        now: Instant,
        random: f64,
    ) -> Result<Duration, Error> {
        if !error.is_connection_lost() {
            return Err(error);
        }
        let lost_at = *self.lost_at.get_or_insert(now);
        let doubled = self
            .reconnect
            .initial_delay
            .saturating_mul(1 << self.attempts.min(30));
        let longest = doubled.min(self.reconnect.max_delay);
        let shortened = longest.mul_f64(1.0 - random / 2.0);
        let pause = shortened.max(error.retry_after().unwrap_or_default());
        if now + pause - lost_at >= self.reconnect.timeout {
            return Err(error);
        }
        self.attempts += 1;
        Ok(pause)
    }

    /// The result of a job that is over.
    pub fn result(&self) -> Result<QuantizationResult, Error> {
        match (self.job.state(), &self.job.result) {
            (JobState::Succeeded, Some(result)) => Ok(result.clone()),
            _ => Err(Error::of_job(self.job.clone())),
        }
    }
}

/// The error of a stream that ended before its job did.
pub(crate) fn ended_early() -> Error {
    Error::local(Code::Unavailable, "the stream ended before the job did")
}

fn is_final(state: JobState) -> bool {
    matches!(
        state,
        JobState::Succeeded | JobState::Failed | JobState::Cancelled
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Error {
        Error::local(Code::Unavailable, "gone")
    }

    fn follower(initial: u64, max: u64, timeout: u64) -> Follower {
        let reconnect = Reconnect {
            initial_delay: Duration::from_secs(initial),
            max_delay: Duration::from_secs(max),
            timeout: Duration::from_secs(timeout),
        };
        Follower::new(reconnect, 0)
    }

    fn event(sequence: u64, event: Event) -> JobEvent {
        JobEvent {
            sequence,
            event: Some(event),
            ..Default::default()
        }
    }

    fn snapshot(sequence: u64, state: JobState) -> JobEvent {
        let job = Job {
            name: "jobs/a".to_owned(),
            state: state.into(),
            last_sequence: sequence,
            ..Default::default()
        };
        event(sequence, Event::Snapshot(job))
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_shortened_by_half_at_most() {
        let now = Instant::now();
        let mut follower = follower(1, 8, 1_000_000);
        for full in [1, 2, 4, 8, 8] {
            let mut other = Follower {
                job: Job::default(),
                reconnect: follower.reconnect.clone(),
                ..follower
            };
            let full = Duration::from_secs(full);
            assert_eq!(other.pause_after(lost(), now, 1.0).unwrap(), full / 2);
            assert_eq!(follower.pause_after(lost(), now, 0.0).unwrap(), full);
        }
        for _ in 0..100 {
            follower.pause_after(lost(), now, 0.5).unwrap();
        }
    }

    #[test]
    fn an_event_starts_the_count_again() {
        let start = Instant::now();
        let mut follower = follower(1, 64, 100);
        for _ in 0..5 {
            follower.pause_after(lost(), start, 0.0).unwrap();
        }
        assert!(follower.accept(&snapshot(1, JobState::Running)));
        let much_later = start + Duration::from_secs(1000);
        let pause = follower.pause_after(lost(), much_later, 0.0).unwrap();
        assert_eq!(pause, Duration::from_secs(1));
    }

    #[test]
    fn it_gives_up_with_the_error_after_a_silence() {
        let start = Instant::now();
        let mut now = start;
        let mut follower = follower(1, 2, 10);
        let error = loop {
            match follower.pause_after(lost(), now, 0.0) {
                Ok(pause) => now += pause,
                Err(error) => break error,
            }
        };
        assert_eq!(error.message(), "gone");
        assert_eq!(now - start, Duration::from_secs(9));
    }

    #[test]
    fn an_answer_of_the_server_is_no_reason_to_wait() {
        let refused = Error::local(Code::NotFound, "no such job");
        let result = follower(1, 2, 10).pause_after(refused, Instant::now(), 0.0);
        assert_eq!(result.unwrap_err().code(), Code::NotFound);
    }

    #[test]
    fn events_count_once_and_heartbeats_always() {
        let mut follower = follower(1, 2, 10);
        assert!(follower.accept(&snapshot(1, JobState::Queued)));
        assert!(follower.accept(&snapshot(2, JobState::Running)));
        assert!(!follower.accept(&snapshot(1, JobState::Queued)));
        assert!(follower.accept(&event(2, Event::Heartbeat(Default::default()))));
        assert!(!follower.accept(&JobEvent::default()));
        assert_eq!((follower.last_sequence(), follower.is_over()), (2, false));
        assert_eq!(follower.job().state(), JobState::Running);
        assert!(follower.accept(&snapshot(3, JobState::Failed)));
        assert!(follower.is_over());
        assert_eq!(follower.result().unwrap_err().job(), Some(follower.job()));
    }

    #[test]
    fn a_finished_job_is_over_when_its_last_event_was_seen() {
        let finished = |last_sequence| Job {
            state: JobState::Succeeded.into(),
            last_sequence,
            ..Default::default()
        };
        let mut follower = Follower::new(Reconnect::default(), 7);
        follower.see(finished(8));
        assert!(!follower.is_over());
        follower.see(finished(7));
        assert!(follower.is_over());
        // The server says what is wrong with asking for more than there is.
        follower.see(finished(6));
        assert!(!follower.is_over());
    }
}
