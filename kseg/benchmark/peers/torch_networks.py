"""Measures networks of segmentation_models_pytorch and torchvision.

`kseg.benchmark --what=gpu` runs this file as a script, with the Python of an environment that has
these packages, which need not have TensorFlow or kseg. It prints one line of JSON for the device
and one for each task.
"""

import gc
import importlib
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable

# smp's default rates are those of output stride 8.
_RATES = {"decoder_atrous_rates": (6, 12, 18)}
# Name of a network in `kseg.benchmark.gpu.measurements` -> arguments of smp's DeepLabV3Plus.
SMP = {
    "xception_65": {"encoder_name": "tu-xception65", **_RATES},
    "mobilenet_v2": {"encoder_name": "mobilenet_v2", **_RATES},
    "resnet50": {"encoder_name": "resnet50", **_RATES},
    "resnet50_os8": {"encoder_name": "resnet50", "encoder_output_stride": 8},
}
# Its ResNet50 has output stride 8.
TORCHVISION = {"resnet50_os8": "deeplabv3_resnet50"}
CLASSES = 21
MARK = "kseg-benchmark "  # Begins the lines that are messages.


def main(request: dict) -> None:
    """Prints the device and the results of the tasks of a request."""
    for package in ("torch", "segmentation_models_pytorch"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            send({"missing": f"{error.name} is not installed"})
            return
    import segmentation_models_pytorch as smp
    import torch

    has_gpu = torch.cuda.is_available()
    send(
        {
            "device": torch.cuda.get_device_name(0) if has_gpu else "",
            "versions": {"torch": torch.__version__, "segmentation_models": smp.__version__},
        }
    )
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
    for task in request["tasks"]:
        result = {}
        try:
            result = measure(task, request, "cuda" if has_gpu else "cpu")
        except Exception as error:  # The other networks are measured all the same.
            traceback.print_exc()
            first_line = (str(error).strip().splitlines() or [""])[0]
            result["note"] = f"failed: {type(error).__name__}: {first_line}"
        send({"task": task, "rows": [result]})
        gc.collect()
        if has_gpu:
            torch.cuda.empty_cache()


def measure(task: dict, request: dict, device: str) -> dict:
    """Returns the milliseconds, images per second and peak memory of one task."""
    import torch

    # smp takes sides that are multiples of the output stride.
    side = max(request["size"] // 32 * 32, 32)
    torch.manual_seed(0)
    shape = (request["batch"], 3, side, side)
    images = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (shape[0], side, side), device=device)
    network = build(task).to(device, memory_format=torch.channels_last)
    dtype = getattr(torch, task["dtype"])
    context = torch.autocast(device, dtype, enabled=dtype != torch.float32)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    if task["passes"] == "forward":
        call = _forward(network, images, context)
    else:
        call = _step(network, images, labels, context, torch.amp.GradScaler(
            device, enabled=device == "cuda" and dtype == torch.float16
        ))  # fmt: skip
    times = timed(call, request["repetitions"], request["block_seconds"], device)
    memory = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
    return {
        "images": f"{shape[0]}x{side}x{side}",
        "ms": quartiles(times),
        "images_per_second": 1000 * shape[0] / statistics.median(times),
        "memory_mib": memory,
    }


def build(task: dict) -> Callable:
    """Builds the network of a task, whose form is "smp" or "torchvision", with random weights."""
    if task["form"] == "torchvision":
        from torchvision.models import segmentation

        builder = getattr(segmentation, TORCHVISION[task["what"]])
        return builder(weights=None, weights_backbone=None, num_classes=CLASSES)
    import segmentation_models_pytorch as smp

    options = SMP[task["what"]]
    return smp.DeepLabV3Plus(encoder_weights=None, classes=CLASSES, **options)


def _forward(network, images, context):
    import torch

    network.eval()

    def call():
        with torch.inference_mode(), context:
            return network(images)

    return call


def _step(network, images, labels, context, scaler):
    import torch

    network.train()
    optimizer = torch.optim.SGD(
        network.parameters(), 1e-3, momentum=0.9, nesterov=True, weight_decay=4e-5
    )

    def call():
        optimizer.zero_grad(set_to_none=True)
        with context:
            logits = network(images)
            logits = logits["out"] if isinstance(logits, dict) else logits
            loss = torch.nn.functional.cross_entropy(logits, labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    return call


def timed(call: Callable, repetitions: int, block_seconds: float, device: str) -> list[float]:
    """Returns the milliseconds of a call, after two that are not measured; see `timing`."""
    import torch

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(2):
        begun = time.perf_counter()
        call()
        wait()
        seconds = max(time.perf_counter() - begun, 1e-6)
    size = min(int(block_seconds / seconds) + 1, 50)
    times = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        for _ in range(size):
            call()
        wait()
        times.append(1000 * (time.perf_counter() - begun) / size)
    return times


def quartiles(values: list[float]) -> list[float]:
    """Returns the lower quartile, the median and the upper quartile."""
    if len(values) == 1:
        return values * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def send(message: dict) -> None:
    """Prints a message for the process that started this one."""
    print(MARK + json.dumps(message), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
