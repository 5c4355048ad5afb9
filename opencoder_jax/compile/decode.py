"""python -m opencoder_jax compile --program=decode: a step of the engine on TPUs that aren't here.

A step draws a token of each row: it reads all weights and the rows' keys and values once, so the memory's bandwidth is
what limits it. The program is the engine's own (inference/programs.py).
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from opencoder_jax.compile.chips import GIB, Topology, parse_chips
from opencoder_jax.compile.estimate import Estimate, estimate
from opencoder_jax.compile.lower import axes_of, compile_for, held_bytes, mesh_of, needed_memory, positions_of
from opencoder_jax.compile.program.hlo import CompiledProgram
from opencoder_jax.files import write_whole
from opencoder_jax.inference import programs
from opencoder_jax.inference.config import EngineConfig
from opencoder_jax.inference.placement import abstract_cache, abstract_weights
from opencoder_jax.inference.sampling import Settings
from opencoder_jax.kernels.attention.tpu.append import TILE_BYTES
from opencoder_jax.model.config import ModelConfig
from opencoder_jax.model.decoding import Alike, Cache
from opencoder_jax.parallel.mesh import MeshConfig
from opencoder_jax.recipe import UserError, build, parse_flags, refuse_unknown


@dataclass(frozen=True)
class DecodeReport:
    """A compiled step. Bytes and seconds are of one chip."""

    chips: Topology
    mesh: Mesh
    engine: EngineConfig
    slots: int
    memory: dict[str, float]
    due: float  # bytes that a step can't do without reading: weights, and the keys and values of full rows
    estimate: Estimate  # of a call, STEPS steps
    compile_seconds: float

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of a step by part, estimated."""
        return {part: spent / programs.STEPS for part, spent in self.estimate.parts.items()}

    @property
    def seconds(self) -> float:
        """Of a step, estimated."""
        return self.estimate.seconds / programs.STEPS

    @property
    def tokens_per_second(self) -> float:
        """Of a chip."""
        return self.engine.rows / self.seconds / self.chips.size

    @property
    def bandwidth_share(self) -> float:
        """The time that the bytes which are due take at the memory's bandwidth, as a share of the step's."""
        return self.due / self.chips.chip.memory_bandwidth / self.seconds

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "topology": str(self.chips),
            "mesh": dict(self.mesh.shape),
            "rows": self.engine.rows,
            "slots": self.slots,
            "memory_bytes": self.memory,
            "estimated_seconds": self.parts,
            "due_bytes": self.due,
            "tokens_per_second_of_a_chip": self.tokens_per_second,
            "bandwidth_share": self.bandwidth_share,
            "compile_seconds": self.compile_seconds,
        }

    def table(self) -> str:
        """For people."""
        total, limit = self.seconds, self.due / self.chips.chip.memory_bandwidth
        lines = [
            f"{self.chips}, {self.chips.size} chips: {axes_of(self.mesh)}; {self.engine.rows} rows of {self.slots}"
            f" slots, weights {self.engine.weights}; compiled in {self.compile_seconds:.0f} s",
            "",
            f"{'memory of a chip':32}{'GiB':>9}",
            *(f"  {kind:30}{size / GIB:9.2f}" for kind, size in self.memory.items()),
            f"  {'in all, it fits':30}{sum(self.memory.values()) / GIB:9.2f}  of {self.chips.chip.memory / GIB:.0f}",
            "",
            f"{'time of a step, estimated':32}{'ms':>9}{'share':>8}",
            *(f"  {part:30}{1e3 * spent:9.3f}{spent / total:8.1%}" for part, spent in self.parts.items() if spent),
            f"  {'in all':30}{1e3 * total:9.3f}",
            "  greedy, no log-probabilities, all rows full; kernels at the memory's bandwidth; what a call of"
            f" {programs.STEPS} steps does once is shared among them",
            "",
            f"tokens/s of a chip: {self.tokens_per_second:,.0f}",
            f"of the memory's bandwidth: {self.bandwidth_share:.2f} ({self.due / GIB:.2f} GiB that a step must read"
            f" take {1e3 * limit:.3f} ms at {self.chips.chip.memory_bandwidth / 1e9:,.0f} GB/s)",
        ]
        return "\n".join(lines)


def main(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Compiles and prints; `parser` has the flags that both programs take. Raises UserError."""
    parser.description = (
        "Compiles the step of the engine that draws a token of each row, for TPUs that needn't be there: its memory,"
        " where its time would go, tokens a second, and how far that is from what the memory's bandwidth allows."
    )
    parser.epilog = (
        "example, OpenCoder-8B on 8 chips of TPU v5e:\n"
        "  python -m opencoder_jax compile --program=decode --gin_file=gin_configs/models/opencoder_8b.gin"
        " --topology=v5e:2x4 --gin.MeshConfig.tensor=8 --gin.MeshConfig.fsdp=1 --gin.EngineConfig.rows=64\n"
    )
    parser.add_argument("--slots", type=int, default=512, metavar="N", help="tokens of a full row (default: 512)")
    flags, rest = parse_flags(parser, argv, ModelConfig, EngineConfig, MeshConfig)
    refuse_unknown(parser, rest)
    model, engine, mesh = build(ModelConfig), build(EngineConfig), build(MeshConfig)
    if (named := flags.topology or mesh.topology) is None:
        raise UserError("no chips are named: give --topology, such as v5e:2x4")
    chips = parse_chips(named)
    if not isinstance(chips, Topology):
        raise UserError(f"--topology={named}: a step of decoding is compiled for TPUs only")
    if flags.slots % 128 or not 0 < flags.slots <= model.context:
        raise UserError(f"--slots={flags.slots}: give a multiple of 128 up to the model's context, {model.context}")
    report = compile_decode(model, engine, mesh, chips, flags.slots, flags.text)
    print(report.table(), flush=True)
    if flags.output:
        write_whole(flags.output, json.dumps(report.figures(), indent=2) + "\n")


def compile_decode(
    model: ModelConfig, engine: EngineConfig, config: MeshConfig, chips: Topology, slots: int, keep: Path | None = None
) -> DecodeReport:
    """Compiles the step for chips that needn't be there.

    Args:
        slots: of each row; the estimate takes them all to be full.
        keep: a file for the program's text.

    Raises:
        UserError: it can't be divided over the chips, or doesn't fit.
    """
    began = time.perf_counter()
    mesh = mesh_of(config, chips)
    with jax.set_mesh(mesh):
        weights, cache = abstract_weights(model, engine, mesh), abstract_cache(model, engine, slots, mesh)
        lowered = programs.answer.jitted("tpu").lower(  # type: ignore[attr-defined]
            weights, cache, *_rows(engine.rows, slots, mesh), config=model, ends=(0,), draft=engine.draft
        )
    try:
        compiled, program = compile_for(lowered, chips, mesh, "answer", keep)
    except jax.errors.JaxRuntimeError as error:
        needed, capacity = needed_memory(error)
        held = (held_bytes(weights) + held_bytes(cache)) / GIB
        raise UserError(
            f"a step of {engine.rows} rows of {slots} slots doesn't fit {chips}: a chip has {capacity} GiB and would"
            f" need {needed:.2f} (weights and cache: {held:.2f}); lower EngineConfig.rows or --slots, set"
            ' EngineConfig.weights to "int8", or take more chips by MeshConfig.tensor'
        ) from None
    analysis: Any = compiled.memory_analysis()
    memory = {
        "weights": held_bytes(weights),
        "cache": held_bytes(cache),
        "other inputs": max(0.0, analysis.argument_size_in_bytes - held_bytes(weights) - held_bytes(cache)),
        "temporaries": analysis.temp_size_in_bytes,
        "results not in place": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "program": analysis.generated_code_size_in_bytes,
    }
    played = _estimate(program, chips, mesh, cache)
    due = held_bytes((weights.layers, weights.head)) + held_bytes(cache) * model.head_size / cache.keys[0].shape[3]
    return DecodeReport(chips, mesh, engine, slots, memory, due, played, time.perf_counter() - began)


def _rows(rows: int, slots: int, mesh: Mesh) -> tuple[Any, ...]:
    """What a call is told of the rows, on every chip whole."""

    def array(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))

    kinds = (jnp.float32, jnp.int32, jnp.float32, jnp.float32, jnp.float32)
    states = programs.RowStates(
        history=array((rows, slots), jnp.int32),
        last=array((rows,), jnp.int32),
        left=array((rows,), jnp.int32),
        settings=Settings(*(array((rows,), kind) for kind in kinds)),
        random=array((rows, programs.STEPS), jnp.uint32),
        alike=Alike(array((rows,), jnp.int32), array((rows,), jnp.int32)),
    )
    return states, array((), jnp.int32), array((), jnp.bool_), array((), jnp.bool_)


def _estimate(program: CompiledProgram, chips: Topology, mesh: Mesh, cache: Cache) -> Estimate:
    """Of a whole call. The kernels only move bytes, as fast as the memory can."""
    rows, heads, slots, size = cache.keys[0].sharding.shard_shape(cache.keys[0].shape)
    item = np.dtype(cache.keys[0].dtype).itemsize
    read = 2 * rows * heads * slots * size * item
    written = 2 * rows * heads * TILE_BYTES * size  # a tile's slots, there and back
    cycles = {
        name: bytes_ / chips.chip.memory_bandwidth * chips.chip.clock
        for name, bytes_ in (("attention_decode", read), ("attention_append", written))
    }
    return estimate(program, chips, positions_of(mesh.devices), cycles, turns=programs.STEPS)
