"""One decoder block of a walk: stages, statistics, replaced weights (worker only)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import msgspec
import torch

from quantd_server.calibration.activations import ActivationStore
from quantd_server.calibration.model import BlockwiseModel
from quantd_server.calibration.replay import BlockParts, Replay
from quantd_server.calibration.stages import BlockStages
from quantd_server.calibration.statistics import InputStatistics, input_statistics
from quantd_server.calibration.tuning import TunableBlock, original_outputs


class WalkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every block of a walk; see ``BlockWalk``."""

    targets: Collection[str] | None
    sequential: bool
    tuning_epochs: int
    dtype: torch.dtype
    on_progress: Callable[[float], None]
    check_cancelled: Callable[[], None]


class LinearGroup:
    """Linears of a stage that share their input."""

    def __init__(self, step: BlockStep, number: int, names: tuple[str, ...]) -> None:
        self._step = step
        self._number = number
        self.names = names
        """Checkpoint names without ``.weight``; only those the walk was asked for."""

    def statistics(self) -> InputStatistics:
        """Of the input, over all tokens that reach the group; computed anew at every call."""
        return self._step.statistics(self._number)

    def inputs(self) -> Iterator[torch.Tensor]:
        """The input itself, [tokens, K] for every micro-batch in which a token reaches it.

        In bfloat16 or float32, as it is multiplied; not to be written to.
        """
        return self._step.inputs(self._number)


class Stage:
    """Linears of a block that depend on earlier ones and not on each other."""

    def __init__(self, step: BlockStep, groups: list[LinearGroup]) -> None:
        self._step = step
        self.groups = groups

    def weight(self, name: str) -> torch.Tensor:
        """The weight of a linear, a new float32 tensor [out, in]."""
        return self._step.weight(name)

    def replace(self, name: str, weight: torch.Tensor) -> None:
        """Lets the rest of the walk see ``weight`` [out, in] (in the original basis) instead."""
        self._step.replace(name, weight)


class BlockStep:
    """A loaded block between the hidden states before and after it."""

    def __init__(
        self,
        model: BlockwiseModel,
        index: int,
        stages: BlockStages,
        store: ActivationStore,
        micro_batches: Sequence[torch.Tensor],
        options: WalkOptions,
    ) -> None:
        self.index = index
        self._model = model
        self._parts = BlockParts(model.blocks[index], model.linears(index), stages)
        self._store = store
        self._micro_batches = micro_batches
        self._options = options
        self._remaining = self._all_stages()
        self._tunes = bool(options.tuning_epochs) and any(map(self._wanted, self._parts.groups))
        self._handed_over = False
        self._left = False
        wanted = sum(1 for group in self._parts.groups if self._wanted(group))
        passes = self._parts.last_pass + 1 + wanted
        if self._tunes:
            # In units of a pass: the original outputs, tuning and measuring, the new outputs.
            passes += 1 + 1 + 4 * options.tuning_epochs + 2
        self._steps = passes * len(micro_batches)
        self._steps_done = 0.0

    @property
    def linear_names(self) -> tuple[str, ...]:
        """All linears of the block, by their checkpoint names without ``.weight``."""
        return tuple(self._parts.linears)

    def stages(self) -> Iterator[Stage]:
        """The stages in order, without those that hold no target. Can be iterated once.

        The weights of a stage are replaced before the next one is asked for.
        """
        return self._remaining

    def tunable(self) -> TunableBlock | None:
        """What to tune when all stages have been asked for; None if the walk shall not be tuned.

        The caller has to call its ``finish``, which the walk goes on with.
        """
        if not self._tunes:
            return None
        self._handed_over = True
        return TunableBlock(
            self._model,
            self.index,
            self._parts.linears,
            self._store,
            self._micro_batches,
            dtype=self._options.dtype,
            on_step=self._count,
            check_cancelled=self._options.check_cancelled,
        )

    def finish(self) -> None:
        """Goes on to the block's outputs, with the weights of stages not asked for as they are.

        Doing so again changes nothing.
        """
        if self._left:
            return
        for _ in self._remaining:
            pass
        if self._tunes and not self._handed_over:
            raise RuntimeError("a walk that shall be tuned goes on from what tuning ends with")
        self._left = True
        self._options.on_progress(1.0)

    def weight(self, name: str) -> torch.Tensor:
        """See ``Stage.weight``."""
        return self._parts.linears[name].weight()

    def replace(self, name: str, weight: torch.Tensor) -> None:
        """See ``Stage.replace``."""
        self._parts.linears[name].replace(weight, self._options.dtype)

    def statistics(self, group: int) -> InputStatistics:
        """See ``LinearGroup.statistics``."""
        return input_statistics(
            self._counted(self.inputs(group)),
            self._parts.linears[self._parts.groups[group][0]].shape[1],
            device=self._model.device,
            bf16_products=self._options.dtype is torch.bfloat16,
            after_product=self._options.check_cancelled,
        )

    def inputs(self, group: int) -> Iterator[torch.Tensor]:
        """See ``LinearGroup.inputs``."""
        for number in range(len(self._micro_batches)):
            if ("input", group, number) in self._store:
                yield self._store.get(("input", group, number)).flatten(0, -2)

    def _all_stages(self) -> Iterator[Stage]:
        if self._tunes:
            original_outputs(
                self._model,
                self.index,
                self._parts.linears,
                self._store,
                self._micro_batches,
                dtype=self._options.dtype,
                on_step=self._count,
                check_cancelled=self._options.check_cancelled,
            )
        for number, groups in enumerate(self._parts.stages.stages):
            self._pass(number)
            found = [
                LinearGroup(self, self._parts.group_of[group[0]], self._wanted(group))
                for group in groups
                if self._wanted(group)
            ]
            if found:
                yield Stage(self, found)
        if self._tunes:
            self._drop_stored()
        else:
            self._pass(self._parts.last_pass)

    def _wanted(self, group: tuple[str, ...]) -> tuple[str, ...]:
        targets = self._options.targets
        return group if targets is None else tuple(name for name in group if name in targets)

    @torch.inference_mode()
    def _pass(self, stage: int) -> None:
        """Collects the inputs of ``stage``, or the block's outputs when that is the last pass."""
        before = self._parts.stages.stages[stage - 1] if stage else ()
        for number, tokens in enumerate(self._micro_batches):
            self._options.check_cancelled()
            call = self._model.calls(*tokens.shape)[self.index]
            states = self._store.get(("states", number))
            replay = Replay(
                self._parts,
                self._store,
                stage=stage,
                micro_batch=number,
                dtype=self._options.dtype,
                in_turn=self._options.sequential,
                check_cancelled=self._options.check_cancelled,
            )
            returned = replay.run(lambda: call.run(self._parts.block, states))  # noqa: B023 - run now
            if stage == self._parts.last_pass:
                self._store.put(("states", number), self._model.states_of(returned))
            for group in before:
                self._store.drop(("input", self._parts.group_of[group[0]], number))
            self._count()
        for group in before:
            wanted = self._wanted(group)
            for name in group:
                linear = self._parts.linears[name]
                if self._tunes and name not in wanted:
                    linear.release()  # the block is run again, with this one as it is
                else:
                    linear.finish()

    def _drop_stored(self) -> None:
        """Forgets what the last pass would have used."""
        for linear in self._parts.linears.values():
            linear.release()
        for number in range(len(self._micro_batches)):
            for group in range(len(self._parts.groups)):
                self._store.drop(("input", group, number))
            for owner in self._parts.last_use:
                self._store.drop(("output", owner, number))

    def _counted(self, inputs: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        for value in inputs:
            yield value
            self._count()

    def _count(self, steps: float = 1.0) -> None:
        self._steps_done += steps
        self._options.on_progress(min(1.0, self._steps_done / self._steps))
