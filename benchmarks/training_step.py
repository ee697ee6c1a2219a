"""Times and weighs the training step of a model of calcium windows, the same way for every model.

Runs in our environment and in the peer's, so it needs nothing but torch. One step is forward,
backward and AdamW on a batch that is in memory, in training mode with dropout.
"""

import argparse
import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import (
    FlopCounterMode,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

RATE = 30.0
"""Imaging rate in Hz."""
RECORDING_WINDOWS = 20
"""Length of a synthetic recording, in windows."""
READOUT, NUM_CLASSES, NUM_QUERIES = "drifting_gratings_orientation", 8, 4
"""What CalciumPOYOPlus is asked, and how often in every window."""
WARM_UP_STEPS = 1
WEIGHT_PASSES = 10
"""Times a weight passes in a step: read forward and backward, its gradient written; AdamW reads
weight, gradient and two moments, and writes all but the gradient."""
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained, on what and how often. Every field is an option of the command line."""

    units: int = 174
    """Units of a recording."""
    timesteps: int = 30
    """Imaging samples of a window, at 30 Hz."""
    batch: int = 16
    """Windows in a step."""
    recordings: int = 4
    """Recordings that the windows of a step come from, as many from each."""
    dim: int = 64
    """Size of tokens and latents."""
    depth: int = 6
    """Self-attention blocks."""
    cross_heads: int = 2
    """Heads of the cross-attentions."""
    self_heads: int = 8
    """Heads of the self-attentions."""
    dim_head: int = 64
    """Size of a head."""
    latents_per_step: int = 16
    """Latents at every latent time step."""
    latent_steps: int = 8
    """Latent time steps of a window."""
    threads: int = 1
    """Threads of torch."""
    steps: int = 10
    """Repetitions that are timed, after one that is not."""
    seconds: float = 6.0
    """Stop repeating after so many seconds."""
    device: str = "cpu"
    """A device of torch."""
    bf16: bool = False
    """Autocast to bfloat16."""
    seed: int = 0
    """Of weights, activity and dropout."""
    inspect: bool = False
    """Also count matrix products and kept bytes, and profile, after everything is timed."""

    def __post_init__(self) -> None:
        if self.batch % self.recordings:
            raise ValueError(
                f"{self.batch} windows cannot be shared equally by {self.recordings} recordings; "
                "make batch a multiple of recordings."
            )

    @property
    def window_seconds(self) -> float:
        return self.timesteps / RATE

    @property
    def num_tokens(self) -> int:
        """Imaging samples of all units in all windows of a step."""
        return self.batch * self.timesteps * self.units

    def arguments(self) -> list[str]:
        """The options that differ from the defaults, as given on the command line."""
        arguments = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is True:
                arguments.append(f"--{field.name}")
            elif value != field.default:
                arguments.append(f"--{field.name}={value}")
        return arguments


def setting_parser(description: str) -> argparse.ArgumentParser:
    """A parser whose options are the fields of :class:`Setting`."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    for field in dataclasses.fields(Setting):
        if field.type in (bool, "bool"):
            parser.add_argument(f"--{field.name}", action="store_true")
        else:
            kind = type(field.default)
            parser.add_argument(f"--{field.name}", type=kind, default=field.default)
    return parser


def prepare(setting: Setting) -> float:
    """Sets threads and seed; returns the megabytes that the process has after its imports."""
    torch.set_num_threads(setting.threads)
    torch.manual_seed(setting.seed)
    return resident_megabytes("VmRSS")


def measure(
    setting: Setting,
    model: nn.Module,
    loss: Callable[[], Tensor],
    draw: Callable[[], object],
    imports_megabytes: float,
) -> dict:
    """All figures of a model; seconds of every repetition are kept.

    Args:
        setting: How often, and on which device.
        model: In training mode.
        loss: Forward pass on a batch that is on the device.
        draw: Makes another batch, as a data loader would.
        imports_megabytes: From :func:`prepare`.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(watch: Stopwatch) -> None:
        watch.mark()
        with torch.autocast(watch.device.type, torch.bfloat16, enabled=setting.bf16):
            value = loss()
        watch.mark()
        optimizer.zero_grad()
        value.backward()
        watch.mark()
        optimizer.step()
        watch.mark()

    def drawing(watch: Stopwatch) -> None:
        watch.mark()
        draw()
        watch.mark()

    phases = repeat(setting, step)
    draws = repeat(setting, drawing)
    result = {
        **dataclasses.asdict(setting),
        "torch": torch.__version__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "forward_seconds": [forward for forward, _, _ in phases],
        "backward_seconds": [backward for _, backward, _ in phases],
        "step_seconds": [sum(step) for step in phases],
        "pipeline_seconds": [seconds for (seconds,) in draws],
        "imports_megabytes": imports_megabytes,
        "peak_megabytes": resident_megabytes("VmHWM"),
        "device_megabytes": device_megabytes(setting),
    }
    result["windows_per_second"] = setting.batch / (
        statistics.median(result["step_seconds"]) + statistics.median(result["pipeline_seconds"])
    )
    if setting.inspect:
        result |= {
            "multiply_adds_counted": count_multiply_adds(loss),
            "bytes_moved": count_bytes(model, loss),
            "profile": profile_steps(setting, step),
        }
    return result


class Stopwatch:
    """Instants on the clock of the device: of the processor, or of the accelerator's stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list = []

    def mark(self) -> None:
        if self.device.type != "cuda":
            self.marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self.marks.append(event)

    def intervals(self) -> list[float]:
        """Seconds between marks."""
        pairs = list(zip(self.marks[:-1], self.marks[1:], strict=True))
        if self.device.type != "cuda":
            return [stop - start for start, stop in pairs]
        torch.cuda.synchronize(self.device)
        return [start.elapsed_time(stop) / 1e3 for start, stop in pairs]


def repeat(setting: Setting, action: Callable[[Stopwatch], object]) -> list[list[float]]:
    """Seconds between the marks of an action, in every repetition after the first."""
    times: list[list[float]] = []
    started = time.perf_counter()
    while len(times) < WARM_UP_STEPS + setting.steps:
        if len(times) > WARM_UP_STEPS and time.perf_counter() - started > setting.seconds:
            break
        watch = Stopwatch(torch.device(setting.device))
        action(watch)
        times.append(watch.intervals())
    return times[WARM_UP_STEPS:]


def resident_megabytes(field: str) -> float:
    """Memory of this process: ``VmRSS`` now, ``VmHWM`` at its highest.

    Not from getrusage, whose peak is inherited from the process that started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kilobytes) / 1e3


def device_megabytes(setting: Setting) -> float | None:
    """Most memory that tensors had on an accelerator; None on a CPU."""
    if not setting.device.startswith("cuda"):
        return None
    return torch.cuda.max_memory_allocated(setting.device) / 1e6


def count_multiply_adds(loss: Callable[[], Tensor]) -> int:
    """Multiply-adds of all matrix products of a forward and backward pass, counted as they run."""
    with FlopCounterMode(display=False) as counter:
        loss().backward()
    return counter.get_total_flops() // 2


aten = torch.ops.aten  # what torch's counter leaves out: in-place products, attention on a CPU


@register_flop_formula([aten.addmm_, aten.baddbmm_])
def _(total: Shape, one: Shape, two: Shape, *_: object, out_shape: Shape, **__: object) -> int:
    return 2 * math.prod(one) * two[-1]


@register_flop_formula(aten._scaled_dot_product_flash_attention_for_cpu)
def _(query: Shape, key: Shape, value: Shape, *_: object, out_shape: Shape, **__: object) -> int:
    return sdpa_flop_count(query, key, value)


@register_flop_formula(aten._scaled_dot_product_flash_attention_for_cpu_backward)
def _(*shapes: Shape, out_shape: Shape, **_: object) -> int:
    return sdpa_backward_flop_count(*shapes[:4])


def count_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> int:
    """Bytes that must pass between forward, backward and optimiser.

    What the forward pass keeps for the backward pass is written and read once, and weights with a
    gradient pass :data:`WEIGHT_PASSES` times. Caches may hold some of it.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss()  # alive until here, so no address is used twice
    total = 2 * sum(kept.values())
    value.backward()
    trained = (p for p in model.parameters() if p.grad is not None)
    return total + WEIGHT_PASSES * sum(p.numel() * p.element_size() for p in trained)


def profile_steps(setting: Setting, step: Callable[[Stopwatch], None]) -> str:
    """The profiler's table of three steps: the 20 operations with most time of their own."""
    device = torch.device(setting.device)
    is_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profile(activities=activities) as profiler:
        for _ in range(3):
            step(Stopwatch(device))
    order = "self_device_time_total" if is_cuda else "self_cpu_time_total"
    return profiler.key_averages().table(sort_by=order, row_limit=20)
