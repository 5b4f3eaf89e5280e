//! A real server in a process of its own, and a checkpoint that quantizes in no time.

use std::ffi::OsString;
use std::io::{Write as _, stderr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use quantd_client::{Client, Reconnect};

const START_LIMIT: Duration = Duration::from_secs(60);

/// Python that can import the server, or `None`, with a message, when no one named it.
pub fn python() -> Option<OsString> {
    static SKIPPED: Once = Once::new();
    let python = env::var_os("QUANTD_PYTHON");
    if python.is_none() {
        // Not by a macro: what those print of tests that pass is not shown.
        SKIPPED.call_once(|| {
            let _ =
                stderr().write_all(b"skipping tests against a server: QUANTD_PYTHON is not set\n");
        });
    }
    python
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A folder that is removed at the end. Its name is short, for the sake of sockets.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("quantd-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The server. It listens on a socket in `folder`, which is its only root, too.
pub struct Server {
    python: OsString,
    options: Vec<String>,
    listen: String,
    process: Child,
    folder: Folder,
}

impl Server {
    /// Starts a server that keeps its jobs; `None` when there is no Python to start it with.
    pub fn start(options: &[&str]) -> Option<Self> {
        Self::start_at(None, options)
    }

    /// The server of all tests that start no job. It ends with the last one that has it.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(Self::start(&[])?);
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    pub fn start_at(listen: Option<&str>, options: &[&str]) -> Option<Self> {
        let python = python()?;
        let folder = Folder::new();
        let listen = listen.map_or_else(
            || format!("unix:{}/socket", folder.0.display()),
            str::to_owned,
        );
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let process = spawn(&python, &folder.0, &listen, &options);
        Some(Self {
            python,
            options,
            listen,
            process,
            folder,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// A path below the root of the server.
    pub fn path(&self, name: &str) -> String {
        self.folder().join(name).display().to_string()
    }

    /// Where it listens, as it says itself.
    pub fn address(&self) -> String {
        let ready = fs::read_to_string(self.folder().join("ready")).unwrap();
        ready.split_whitespace().next().unwrap().to_owned()
    }

    pub fn client(&self) -> Client {
        Client::builder(self.address())
            .reconnect(quick())
            .build()
            .unwrap()
    }

    /// Ends the server as a crash does.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, with the same jobs.
    pub fn start_again(&mut self) {
        self.process = spawn(&self.python, &self.folder.0, &self.listen, &self.options);
    }

    /// Writes a tiny Llama of so many blocks; returns its path.
    pub fn write_llama(&self, name: &str, blocks: u32) -> String {
        let path = self.path(name);
        self.run_python(
            "from tests.client.tiny_checkpoint import write_tiny_llama; \
             write_tiny_llama(pathlib.Path(sys.argv[1]), int(sys.argv[2]))",
            &[&path, &blocks.to_string()],
        );
        path
    }

    /// Writes a tiny Llama with a tokenizer.
    pub fn write_llama_with_tokenizer(&self, name: &str) -> String {
        let path = self.path(name);
        self.run_python(
            "from tests.tiny_models import write; write(pathlib.Path(sys.argv[1]))",
            &[&path],
        );
        path
    }

    /// Puts a program on the PATH of the server.
    pub fn install_program(&self, name: &str) {
        let path = self.folder().join("bin").join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    }

    /// Writes a checkpoint that takes seconds to become a .gguf file of IQ4_XS.
    pub fn write_slow(&self, name: &str) -> String {
        let path = self.path(name);
        self.run_python(
            "from tests.tiny_models import write_slow; write_slow(pathlib.Path(sys.argv[1]))",
            &[&path],
        );
        path
    }

    fn run_python(&self, program: &str, arguments: &[&str]) {
        run_python(&self.python, program, arguments);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Python in this checkout, which may not be the one that is installed.
fn command(python: &OsString) -> Command {
    let roots = ["server", "clients/python/src", ""].map(|root| repository().join(root));
    let mut command = Command::new(python);
    // Settings of another server are none of ours.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("QUANTD_") {
            command.env_remove(name);
        }
    }
    command
        .env("PYTHONPATH", env::join_paths(roots).unwrap())
        .current_dir(repository());
    command
}

/// Runs a program that may use sys and pathlib.
pub fn run_python(python: &OsString, program: &str, arguments: &[&str]) {
    let program = format!("import sys, pathlib; {program}");
    let status = command(python)
        .args(["-c", &program])
        .args(arguments)
        .status()
        .unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

fn spawn(python: &OsString, folder: &Path, listen: &str, options: &[String]) -> Child {
    let (ready, log) = (folder.join("ready"), folder.join("log"));
    let _ = fs::remove_file(&ready);
    let output = fs::File::options()
        .create(true)
        .append(true)
        .open(&log)
        .unwrap();
    let programs = folder.join("bin");
    fs::create_dir_all(&programs).unwrap();
    let path = env::var_os("PATH").unwrap_or_default();
    let path = [programs].into_iter().chain(env::split_paths(&path));
    let mut process = command(python)
        .env("PATH", env::join_paths(path).unwrap())
        .args([
            "-m",
            "quantd_server",
            "serve",
            "--threads",
            "1",
            "--listen",
            listen,
        ])
        .arg("--ready-file")
        .arg(&ready)
        .arg("--source-root")
        .arg(folder)
        .arg("--output-root")
        .arg(folder)
        .arg("--state")
        .arg(folder.join("state"))
        .args(options)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !ready.exists() {
        let said = || fs::read_to_string(&log).unwrap();
        assert!(process.try_wait().unwrap().is_none(), "{}", said());
        assert!(start.elapsed() < START_LIMIT, "{}", said());
        thread::sleep(Duration::from_millis(20));
    }
    process
}

/// Comes back quickly.
pub fn quick() -> Reconnect {
    Reconnect {
        initial_delay: Duration::from_millis(10),
        max_delay: Duration::from_millis(200),
        timeout: Duration::from_secs(60),
    }
}
