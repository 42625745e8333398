"""``plan``: what a training configuration or a cascade needs, counted without a GPU and without weights."""

from typing import Any, Literal

CAPACITIES = (24e9, 80e9, 141e9)
"""Bytes of common GPUs. Cards of these names hold 5 to 7 % more; that is left to what is not counted."""

Part = Literal["prior", "decoder", "interpolation", "sr_spacetime", "sr_spatial"]
Row = tuple[str, ...]


def plan(
    model: str,
    until: Part = "sr_spatial",
    frames: int = 16,
    frame_skip: int = 5,
    batch_size: int = 1,
    precision: Literal["bf16", "float32"] = "bf16",
    device: Literal["cuda", "cpu"] = "cuda",
) -> None:
    """Parameters, FLOPs and peak memory: of generating with --model DIR, or of a training step with --config FILE.

    --config FILE takes every option of fit: plan --config configs/prior.yaml --data.batch_size 8. Nothing that
    they name need be there. With --trainer configs/trainer/fsdp2.yaml --trainer.devices 8 it is what each of 8 GPUs
    needs; that is arithmetic on the count for one. Counted are tensors; not counted are the frozen CLIP, the CUDA
    context, a kernel's workspace and the gaps between tensors.

    Args:
        model: Pipeline folder, with a sub-folder for each model.
        until: Last model to count.
        frames: Frames of the decoder's video.
        frame_skip: Frames from one of those to the next after interpolation.
        batch_size: Videos made at once.
        precision: As generate takes it.
        device: Whose kernels to count.
    """
    print(table(cascade_rows(model, until, frames, frame_skip, batch_size, precision, device)))


def plan_training(words: list[str]) -> None:
    """Print what a training step of ``fit`` with the command line ``words`` needs."""
    print(table(training_rows(words)))


def training_rows(words: list[str]) -> list[Row]:
    """Return what one training step needs, on a GPU unless ``words`` give the trainer another accelerator."""
    from lightning_mav.cli import dry_run
    from lightning_mav.planning.training import plan_step

    run = dry_run(words)
    trainer = run.config.fit.trainer
    device: Literal["cuda", "cpu"] = "cpu" if trainer.accelerator == "cpu" else "cuda"
    ranks = sharding_ranks(trainer)
    planned = plan_step(run.model, run.datamodule, str(trainer.precision), device, ranks)
    return [
        ("stage", type(run.model).__name__.removesuffix("Stage")),
        ("parameters", f"{planned.parameters / 1e6:.1f} M, trained {planned.trained / 1e6:.1f} M"),
        ("batch size", str(planned.batch_size)),
        *([("sharded over", f"{ranks} devices; by arithmetic, each:")] if ranks > 1 else []),
        ("FLOPs per step", flops(planned.flops)),
        *memory_rows(planned.memory),
        *((f"largest batch on {size / 1e9:.0f} GB", str(planned.largest_batch(size))) for size in CAPACITIES),
    ]


def sharding_ranks(trainer: Any) -> int:
    """Return over how many devices a trainer's configuration shards the model; 1 if it does not.

    Raises:
        ConfigError: It shards over a number of devices that only the machine knows.
    """
    from lightning_mav.errors import ConfigError

    if not str(getattr(trainer.strategy, "class_path", "")).endswith(".ShardedStrategy"):
        return 1
    if not str(trainer.devices).isdigit() or int(trainer.devices) < 1:
        raise ConfigError(f"trainer.devices: {trainer.devices}; give plan the number per node, --trainer.devices 8")
    return int(trainer.devices) * int(trainer.num_nodes)


def cascade_rows(
    folder: str,
    until: Part,
    frames: int,
    frame_skip: int,
    batch_size: int,
    precision: Literal["bf16", "float32"],
    device: Literal["cuda", "cpu"],
) -> list[Row]:
    """Return what each part of a cascade needs, and the largest part, for one is in memory at a time."""
    from lightning_mav import generation
    from lightning_mav.pipeline import PARTS
    from lightning_mav.planning.generating import Request, plan_cascade

    parts = PARTS[: PARTS.index(until) + 1]
    generation.check_positive(frames=frames, frame_skip=frame_skip, batch_size=batch_size)
    generation.check_frames(frames, frame_skip, parts)
    pipeline = generation.open_pipeline(folder, {}, "cpu", precision)
    configs = generation.configs_of(pipeline, parts, with_weights=False)
    plans = plan_cascade(configs, Request(batch_size, frames, frame_skip, precision == "bf16", device))
    largest = max(plans, key=lambda part: plans[part].memory.total())
    total = plans[largest].memory.total()
    return [
        ("part", "parameters", "steps", f"FLOPs for {batch_size} video(s)", "weights", "activations", "peak"),
        *(
            (
                part,
                f"{p.parameters / 1e6:.1f} M",
                str(p.steps),
                flops(p.flops),
                *(gigabytes(size) for size in (p.memory["weights"], p.memory["activations"], p.memory.total())),
            )
            for part, p in plans.items()
        ),
        ("all", "", "", flops(sum(p.flops for p in plans.values())), "", "", f"{gigabytes(total)} ({largest})"),
    ]


def memory_rows(memory: Any) -> list[Row]:
    """Return the parts of a peak and their sum."""
    kinds = ("weights", "gradients", "optimizer", "ema", "gathered", "activations")
    counted = [kind for kind in kinds if kind in memory or kind != "gathered"]
    return [*((kind, gigabytes(memory[kind])) for kind in counted), ("peak memory", gigabytes(memory.total()))]


def gigabytes(size: float) -> str:
    """Return bytes in GB of 10^9, small ones in MB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"


def flops(number: float) -> str:
    """Return a number of operations in units of 10^9 or 10^12."""
    return f"{number / 1e12:,.4g} TFLOP" if number >= 1e12 else f"{number / 1e9:.4g} GFLOP"


def table(rows: list[Row]) -> str:
    """Return rows as lines of aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
