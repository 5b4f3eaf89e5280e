"""`quantization_config` of AQLM, as ``AqlmConfig`` of transformers writes its five fields.

The others are those of the training; quantd writes them under the names of the spec.
"""

from __future__ import annotations

from quantd_server.methods.configs import AqlmConfig
from quantd_server.planning.config_parsing.rules import Choice, Integer, Names, Number
from quantd_server.planning.config_parsing.table import IDENTITY, Field, Ignored, MethodTable

_GROUP = Integer(minimum=1, maximum=64)
_STEPS = Integer(minimum=1, maximum=100_000)
_RATE = Number(above_minimum=True, maximum=1)

TABLE = MethodTable(
    name="aqlm",
    quant_method="aqlm",
    config=AqlmConfig,
    fields=(
        Field("num_codebooks", Integer(minimum=1, maximum=16)),
        Field("nbits_per_codebook", Integer(minimum=1, maximum=16)),
        Field("in_group_size", _GROUP),
        Field("out_group_size", _GROUP),
        Field("linear_weights_not_to_quantize", Names(max_items=65_536)),
        Field("relative_mse_tolerance", Number(maximum=1, below_maximum=True)),
        Field("max_epochs", _STEPS),
        Field("steps_per_epoch", _STEPS),
        Field("lr", _RATE),
        Field("beam_size", Integer(minimum=1, maximum=64)),
        Field("init_max_iter", Integer(minimum=1, maximum=10_000)),
        Field("init_max_points_per_centroid", Integer(maximum=1_000_000)),
        Field("finetune_max_epochs", Integer(maximum=1_000)),
        Field("finetune_lr", _RATE),
        Field("finetune_batch_size", Integer(minimum=1, maximum=65_536)),
        Field("finetune_early_stop", Integer(minimum=1, maximum=1_000)),
    ),
    ignored=(Ignored(("method",), IDENTITY, Choice.of("aqlm")),),
)
