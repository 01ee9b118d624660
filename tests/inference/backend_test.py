"""What the programs set up on TensorFlow before the first computation."""

import os
import subprocess
import sys

import keras
import pytest
import tensorflow as tf

from kseg.inference import backend


@pytest.fixture
def on_processor(monkeypatch, tmp_path):
    """Sets the flags of the processor and `TF_ENABLE_ONEDNN_OPTS`; the options are set back."""

    def setting(flags: str | None, onednn: str | None) -> None:
        file = tmp_path / "cpuinfo"
        if flags is not None:
            file.write_text(f"processor : 0\nflags : {flags}\n")
        monkeypatch.setattr(backend, "_CPU_INFO", file)
        if onednn is None:
            monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
        else:
            monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)

    before = tf.config.optimizer.get_experimental_options().get("remapping", True)
    yield setting
    tf.config.optimizer.set_experimental_options({"remapping": before})


@pytest.mark.parametrize(
    ("flags", "onednn", "slow"),
    [
        ("fma avx avx2", "1", True),
        ("fma avx avx2", "true", True),
        ("fma avx avx2", "0", False),
        ("fma avx avx2", None, False),
        ("fma avx avx2 avx512f avx512_vnni", "1", False),
        ("asimd", "1", False),  # ARM
        (None, "1", False),  # no Linux
    ],
)
def test_fusions_are_left_out_where_onednn_was_asked_for_on_avx2(on_processor, flags, onednn, slow):
    on_processor(flags, onednn)
    assert backend.fusions_are_slow() == slow


def test_fusions_stay_where_there_is_a_gpu(on_processor, monkeypatch):
    on_processor("avx2", "1")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["GPU:0"])
    assert not backend.fusions_are_slow()


@pytest.mark.parametrize(("onednn", "remapping"), [("1", False), ("0", True)])
def test_a_program_tells_tensorflow(on_processor, onednn, remapping):
    on_processor("avx2", onednn)
    tf.config.optimizer.set_experimental_options({"remapping": True})
    backend.prepare_backend()
    assert tf.config.optimizer.get_experimental_options()["remapping"] == remapping


@pytest.mark.parametrize(
    ("gpus", "folder", "flags", "expected"),
    [
        (1, "cache", "", "{flag}={folder}/kseg/xla"),
        (1, "cache", "--other=1", "--other=1 {flag}={folder}/kseg/xla"),
        (1, "cache", "{flag}=mine", "{flag}=mine"),
        (1, "cache", "flags.txt", "flags.txt"),  # A file of flags.
        (1, "my cache", "--other=1", "--other=1"),
        (1, "file/cache", "--other=1", "--other=1"),  # It cannot be made.
        (0, "cache", "--other=1", "--other=1"),
    ],
)
def test_on_a_gpu_xla_stores_its_choice_of_kernels(
    gpus, folder, flags, expected, monkeypatch, tmp_path
):
    (tmp_path / "file").touch()
    names = {"flag": "--xla_gpu_per_fusion_autotune_cache_dir", "folder": tmp_path / folder}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / folder))
    monkeypatch.setenv("XLA_FLAGS", flags.format(**names))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["GPU:0"] * gpus)
    backend.prepare_backend()
    assert os.environ["XLA_FLAGS"] == expected.format(**names)


def test_a_folder_that_cannot_be_written_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XLA_FLAGS", "")
    # As root every folder can be written.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    backend._keep_autotuning()
    assert not os.environ["XLA_FLAGS"]


def test_xla_knows_the_flag(monkeypatch, tmp_path):
    """An unknown flag would end the process."""
    program = (
        "import tensorflow as tf\n"
        "from kseg.inference import backend\n"
        "backend._keep_autotuning()\n"
        "print(tf.function(lambda x: x + 1, jit_compile=True)(1).numpy())\n"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.stdout == "2\n", done.stderr[-2000:]
    assert (tmp_path / "kseg" / "xla").is_dir()


@pytest.mark.parametrize("given", ["", "mine"])
def test_on_jax_compiled_steps_are_kept_in_the_cache_of_kseg(given, monkeypatch, tmp_path):
    jax = pytest.importorskip("jax")
    updates = {}
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *_: None)
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    if given:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", given)
    backend.prepare_backend()
    expected = {} if given else {"jax_compilation_cache_dir": str(tmp_path / "kseg" / "jax")}
    assert updates == expected
