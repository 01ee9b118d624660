"""Two replicas train to the weights of one device, on two logical CPUs of a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

SCRIPT = """
import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from kseg.layers import BatchNorm
from kseg.training.distribution import make_strategy
from kseg.training.losses import pixel_weights
from kseg.training.recipe import compile_model

STEPS, BATCH = 20, 8


def network():
    keras.utils.set_random_seed(1)
    x = images = keras.Input((9, 9, 3))
    for number in range(2):
        x = keras.layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(BatchNorm(name=f"norm_{number}")(x))
    return keras.Model(images, keras.layers.Conv2D(4, 1, name="logits")(x))


def train(name):
    strategy = make_strategy(name, BATCH)
    with strategy.scope():
        model = network()
        compile_model(
            model, total_steps=STEPS, steps_per_epoch=STEPS, learning_rate=0.05, momentum=0.9,
            nesterov=True, weight_decay=1e-4, batch_norm_momentum=0.9, ignore_label=255,
            replicas=strategy.num_replicas_in_sync,
        )
    rng = np.random.default_rng(0)
    images = rng.normal(size=(STEPS * BATCH, 9, 9, 3)).astype("float32")
    labels = rng.integers(0, 4, (STEPS * BATCH, 9, 9)).astype("uint8")
    # The second half of each batch, one replica's, has few labelled pixels.
    second = np.arange(STEPS * BATCH) % BATCH >= BATCH // 2
    labels[second[:, None, None] & (rng.random(labels.shape) < 0.9)] = 255
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH)
    batches = batches.map(lambda x, y: (x, y, pixel_weights(y, 255)))
    history = model.fit(batches, verbose=0, shuffle=False)
    return strategy.num_replicas_in_sync, history.history["loss"][0], model.get_weights()


one, two = train("default"), train("mirrored")
apart = max(float(np.max(np.abs(a - b))) for a, b in zip(one[2], two[2]))
print("RESULT", one[0], two[0], one[1], two[1], apart)
"""


def test_two_replicas_train_to_the_weights_of_one_device():
    """With other numbers of ignored pixels in each replica, and batch norms, over 20 steps."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=REPOSITORY, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    _, one_replica, replicas, loss, mirrored_loss, apart = line.split()
    assert (one_replica, replicas) == ("1", "2")
    assert float(mirrored_loss) == pytest.approx(float(loss), rel=1e-5)
    assert float(apart) < 1e-5
