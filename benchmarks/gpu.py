"""What limits a trace on a GPU: bytes to the device, the in-place swap, forward and fits there, and the share of time in which it is idle.

Run: `.venv/bin/python benchmarks/gpu.py` (one to three minutes on a GPU with 16 GB; random weights of the Llama shape, nothing is fetched).
`--size 7b` is the real thing (two checkpoints of 13.5 GB on disk); `--device cpu --size tiny` tries the command where there is no GPU.

    read     disk (page cache) -> pinned memory -> device, as `weight_swap.load_into` does it, and the same from plain memory
    swap     another checkpoint into the network that is there
    forward  activations of 4 concepts at all layers
    fits     probes, intervals and floors on the device
    whole    two checkpoints, the next one being read ahead: idle = share of the wall time without work on the device
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

SHAPES = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "num_attention_heads": 4},
    "1b": {"hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192, "num_attention_heads": 16},
    "7b": {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 11008, "num_attention_heads": 32},
}
ROOT = Path(__file__).parent.parent / ".bench" / "gpu"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=SHAPES, default="1b")
    parser.add_argument("--texts", type=int, default=1000, help="texts of each concept")
    parser.add_argument("--concepts", type=int, default=4)
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "gpu.py: no CUDA device on this machine, so nothing was measured: run it where there is one, or try "
            "--device cpu --size tiny."
        )
        return 1
    found = measure(options)
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 0


def measure(options: argparse.Namespace) -> dict:
    import torch

    from ontogeny.activations.capture import capture_workload
    from ontogeny.activations.workload import build_workload
    from ontogeny.measurements.design import make_design
    from ontogeny.measurements.measure import measure_concept
    from ontogeny.measurements.settings import TraceSettings
    from ontogeny.models import weight_swap
    from ontogeny.models.model import load_model

    device, dtype = options.device, "float32" if options.device == "cpu" else "bfloat16"
    folders = checkpoints(options.size, dtype)
    size = (folders[0] / "model.safetensors").stat().st_size
    for folder in folders:
        weight_swap.warm_page_cache(folder)
    clock = Clock(device)
    model = load_model(folders[0], device=device, dtype=dtype)
    known = weight_swap.tensor_map(model.network, folders[0])
    assert known is not None
    if device == "cpu":
        weight_swap.copy_to_own_memory(model.network)
    swap = min(
        clock(partial(weight_swap.load_into, model.network, known, f)) for f in (folders[1], folders[0], folders[1])
    )
    pageable, pinned = copies(clock, min(size, 2**30), device)
    settings = TraceSettings(sites="resid", dtype=dtype)
    concepts = [concept(options.texts, number) for number in range(options.concepts)]
    designs = [make_design(c, settings) for c in concepts]
    sites = model.sites("resid")

    work, rows = build_workload(concepts, model.tokenizer, model.context)
    read = partial(capture_workload, model, work, sites)
    captured = read()  # kernels are chosen on the first pass
    forward = clock(read)

    def fit() -> None:
        for own, design in zip(rows.values(), designs, strict=True):
            parts = {part: x[:, own.reads] for part, x in captured.parts.items()}
            measure_concept(design, parts, captured.sites, captured.inputs[own.sequences], settings)

    fits = clock(fit)
    whole, busy = overlapped(clock, model, known, folders, read, fit)
    tokens = captured.counts.real_tokens
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "size": options.size,
        "dtype": dtype,
        "gigabytes": size / 1e9,
        "pageable GB/s": pageable,
        "pinned GB/s": pinned,
        "swap s": swap,
        "swap GB/s": size / swap / 1e9,
        "forward s": forward,
        "tokens/s": tokens / forward,
        "fits s": fits,
        "fits / forward": fits / forward,
        "two checkpoints s": whole,
        "idle share": max(0.0, 1 - busy / whole),
        "slowest": max((("swap", swap), ("forward", forward), ("fits", fits)), key=lambda part: part[1])[0],
    }


class Clock:
    """Seconds of a call, until the device has ended it."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __call__(self, work: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        import torch

        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


def overlapped(clock: Clock, model, known, folders: list[Path], read, fit) -> tuple[float, float]:
    """Wall seconds of two checkpoints with read-ahead, and those with work on the device."""
    from concurrent.futures import ThreadPoolExecutor

    from ontogeny.models import weight_swap

    busy = 0.0

    def both() -> None:
        nonlocal busy
        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(weight_swap.warm_page_cache, folders[0])
            for place, folder in enumerate(folders):
                waiting.result()
                busy += clock(partial(weight_swap.load_into, model.network, known, folder))
                if place + 1 < len(folders):
                    waiting = ahead.submit(weight_swap.warm_page_cache, folders[place + 1])
                busy += clock(read) + clock(fit)

    return clock(both), busy


def copies(clock: Clock, size: int, device: str) -> tuple[float, float]:
    """Rates from host to device, from plain and from pinned memory."""
    import torch

    target, plain = torch.empty(size, dtype=torch.uint8, device=device), torch.zeros(size, dtype=torch.uint8)
    sources = [plain, plain.pin_memory() if device.startswith("cuda") else plain.clone()]
    rates = []
    for source in sources:
        target.copy_(source, non_blocking=True)
        rates.append(
            size / min(clock(lambda source=source: target.copy_(source, non_blocking=True)) for _ in range(3)) / 1e9
        )
    return rates[0], rates[1]


def checkpoints(size: str, dtype: str) -> list[Path]:
    """Two checkpoints of random weights, made once."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.helpers.tiny_models import VOCAB, byte_tokenizer

    vocabulary = VOCAB if size == "tiny" else 32_000
    folders = [ROOT / f"{size}-{dtype}" / f"checkpoint-{step}" for step in (1, 2)]
    for seed, folder in enumerate(folders):
        if (folder / "tokenizer.json").is_file():
            continue
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(seed)
        config = LlamaConfig(vocab_size=vocabulary, max_position_embeddings=2048, **SHAPES[size])
        network = LlamaForCausalLM._from_config(config, dtype=getattr(torch, dtype))
        network.save_pretrained(folder, max_shard_size="1000GB")
        byte_tokenizer().save_pretrained(folder)
    return folders


def concept(texts: int, number: int):
    """A concept of texts of about 40 tokens."""
    from ontogeny.data.concept import Concept

    path = ROOT / f"concept{number}-{texts}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    words = ("left", "right")
    rows = [f"text {i} of the concept {number} turns {words[i % 2]} here,{i % 2},{i // 2}" for i in range(texts)]
    path.write_text("\n".join(["text,label,group", *rows]) + "\n")
    return Concept.from_file(path)


if __name__ == "__main__":
    raise SystemExit(main())
