"""Flagfiles of `experiments/`: each parses, is listed, fits the stage before it, and builds."""

import contextlib
import functools
import re
from pathlib import Path

import keras
import pytest

from experiments import paper_rows
from kseg import evaluate
from kseg.errors import UserError
from kseg.inference import config, counting
from kseg.predict import __main__ as predict
from kseg.runs.experiment_flags import from_flagfile, to_flagfile
from tests.program_calls import parsed_flags

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "experiments"
FLAGFILES = sorted(FOLDER.glob("*.flags"))
# A file that begins with _ is a part that several runs share.
RUNS = [path.stem for path in FLAGFILES if path.stem[0] != "_"]
SMALL_SETS = ("camvid", "roads", "voc_animals")
PAPER_RUNS = [name for name in RUNS if not name.startswith(SMALL_SETS)]
PAPER_ROWS = [row for path in FLAGFILES for row in paper_rows.read_rows(path)]
# Data set at the beginning of a run's name -> number of classes of its data.
CLASSES = {"ade20k": 150, "camvid": 11, "cityscapes": 19, "deepglobe": 2, "roads": 2, "voc": 21}
# Folder in --data_dir -> the splits there, as the commands of experiments/README.md make them.
SPLITS = {
    "ade20k": {"train", "val"},
    "cityscapes": {"train", "val"},
    "cityscapes_coarse": {"train_extra"},
    "coco": {"train2017"},
    "coco_vortex": {"train2017"},
    "deepglobe": {"train", "val"},
    "voc": {"train", "val", "trainval", "trainaug"},
}
INCLUDE = "--flagfile="


def path_of(name):
    return FOLDER / f"{name}.flags"


@functools.cache
def read(path):
    """The experiment of a flagfile, whose includes are relative to the repository's root."""
    with contextlib.chdir(ROOT):
        return from_flagfile(path)


def header(path):
    """The comments of a flagfile as one line."""
    lines = path.read_text().splitlines()
    return " ".join(line[1:].strip() for line in lines if line.startswith("#"))


def includes(path):
    lines = path.read_text().splitlines()
    return [ROOT / line.removeprefix(INCLUDE) for line in lines if line.startswith(INCLUDE)]


def written(path):
    """Flag -> value, as written in a flagfile and the parts that it includes; the last one wins."""
    values = {}
    for line in path.read_text().splitlines():
        if line.startswith(INCLUDE):
            values |= written(ROOT / line.removeprefix(INCLUDE))
        elif line.startswith("--"):
            name, _, value = line[2:].partition("=")
            values[name] = value
    return values


def classes_of(name):
    return next(number for start, number in CLASSES.items() if name.startswith(f"{start}_"))


def network(experiment):
    """The options that determine a network, its initial weights aside."""
    fields = experiment.__dataclass_fields__.values()
    options = [field.name for field in fields if field.metadata.get("option")]
    return {name: getattr(experiment, name) for name in ("model", *options)}


def architectures():
    """One run of each distinct network; those on other backbones than MobileNetV2 are slow."""
    found = {}
    for name in RUNS:
        with contextlib.suppress(UserError):  # `test_every_flagfile_is_an_experiment` fails
            key = str((classes_of(name), network(read(path_of(name)))))
            found.setdefault(key, name)
    return [
        name if "_mobilenet_v2_" in name else pytest.param(name, marks=pytest.mark.slow)
        for name in found.values()
    ]


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_every_flagfile_is_an_experiment(path, tmp_path):
    resolved = tmp_path / "experiment.flags"
    resolved.write_text(to_flagfile(read(path)))
    assert from_flagfile(resolved) == read(path)
    assert path.read_text().startswith("#"), "a flagfile begins with a description"
    assert "/" + "home" not in path.read_text()


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_a_flagfile_includes_only_shared_parts_and_these_include_nothing(path):
    parts = includes(path)
    assert all(part.stem.startswith("_") and not includes(part) for part in parts)
    assert len(parts) == len(set(parts))


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_a_flagfile_has_no_flag_twice_and_no_comment_after_a_value(path):
    flags = [line for line in path.read_text().splitlines() if line.startswith("--")]
    names = [line.partition("=")[0] for line in flags if not line.startswith(INCLUDE)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"--\w+=[^\s#]*", line) for line in flags)


@pytest.mark.parametrize("name", [path.stem for path in FLAGFILES if path.stem[0] == "_"])
def test_a_shared_part_is_used_by_several_runs(name):
    users = [path for path in FLAGFILES if path_of(name) in includes(path)]
    assert len(users) >= 2, users


@pytest.mark.parametrize("name", RUNS)
def test_a_name_consists_of_data_backbone_and_module_or_network(name):
    experiment = read(path_of(name))
    what = f"{experiment.backbone}_{experiment.context or experiment.model}"
    assert re.fullmatch(rf"(voc_animals|{'|'.join(CLASSES)})_{what}(_\w+)?", name)


@pytest.mark.parametrize("name", RUNS)
def test_the_comment_of_a_run_has_its_command(name):
    text = header(path_of(name))
    assert f"runs/{name}" in text
    assert f"experiments/{name}.flags" in text


def listed():
    """Names of runs in the tables and lines of experiments/README.md and paper_rows.md."""
    backbones = "mobilenet_v2|resnet50|resnet101|resnet152|xception_65"
    text = (FOLDER / "README.md").read_text() + paper_rows.PAGE.read_text()
    return set(re.findall(rf"`(\w+_(?:{backbones})_\w+)`", text))


def test_the_pages_name_every_run_and_no_other():
    assert listed() == set(RUNS)


def test_the_page_of_the_papers_rows_is_what_the_flagfiles_say():
    assert paper_rows.PAGE.read_text() == paper_rows.page(), "run: python experiments/paper_rows.py"


def test_every_run_of_a_paper_has_a_row_or_leads_to_one():
    assert {row.run for row in PAPER_ROWS} <= set(PAPER_RUNS)
    assert {name for row in PAPER_ROWS for name in paper_rows.stages(row.run)} == set(PAPER_RUNS)


@pytest.mark.parametrize("row", PAPER_ROWS, ids=lambda row: f"{row.run}, {row.reported}")
def test_the_flags_of_a_row_are_those_of_the_program(row):
    program, text = (predict, row.predict) if row.predict else (evaluate, row.evaluate)
    with parsed_flags(program, *text.split()) as values:
        config.from_flags(values)
    assert ("VOC test" in row.reported) == bool(row.predict)


@pytest.mark.parametrize(
    "lines",
    [
        "# Reported: 1 mIoU",
        "# Paper: UNet, Table 1\n# Reported: 1 mIoU",
        "# Paper: KSAC, Table 1\n# Evaluate: --flip",
        "# Paper: KSAC, Table 1\n# Reported: 1 mIoU\n# Reported: 2 mIoU",
        "# Paper: KSAC, Table 1\n# Reported: 1 mIoU\n# Evaluate: --flip\n# Predict: --flip",
    ],
)
def test_an_incomplete_head_is_rejected_with_the_name_of_the_file(lines, tmp_path):
    path = tmp_path / "a_run.flags"
    path.write_text(f"{lines}\n--context=ksac\n")
    with pytest.raises(ValueError, match="a_run.flags"):
        paper_rows.read_rows(path)


@pytest.mark.parametrize("name", PAPER_RUNS)
def test_a_paper_run_trains_on_splits_that_the_converters_make(name):
    experiment = read(path_of(name))
    val = (experiment.val_split,) if experiment.val_split else ()
    for split in (*experiment.train_split, *val):
        folder, _, part = split.partition("/")
        assert part in SPLITS[folder], split
    if "voc/trainval" in experiment.train_split:
        assert not val, "trainval holds val"
        assert "--submission=" in header(path_of(name))


@pytest.mark.parametrize("name", [name for name in RUNS if "init_from" in written(path_of(name))])
def test_a_stage_begins_from_a_run_with_the_same_network(name):
    stage = int(re.search(r"_stage_(\d)", name)[1])
    before = read(path_of(name)).init_from.removeprefix("runs/")
    assert before in RUNS
    assert before.endswith(f"_stage_{stage - 1}")
    assert network(read(path_of(before))) == network(read(path_of(name)))
    assert classes_of(before) == classes_of(name)


def test_a_run_of_a_later_stage_has_init_from():
    later = [name for name in RUNS if re.search(r"_stage_[23]", name)]
    assert len(later) >= 20
    assert [name for name in later if not read(path_of(name)).init_from] == []


COMPARED = r"Differs from (\w+) in ((?:--\w+(?:, )?)+)\."


@pytest.mark.parametrize("name", [name for name in RUNS if "Differs" in header(path_of(name))])
def test_a_run_differs_from_another_as_its_comment_says(name):
    compared, flags = re.search(COMPARED, header(path_of(name))).groups()
    flags_of_run, flags_of_compared = written(path_of(name)), written(path_of(compared))
    differing = {flag for flag, _ in flags_of_run.items() ^ flags_of_compared.items()}
    assert differing == {flag.removeprefix("--") for flag in flags.split(", ")}


def test_aspp_and_ksac_on_the_animals_differ_in_one_line():
    aspp, ksac = (written(path_of(f"voc_animals_mobilenet_v2_{name}")) for name in ("aspp", "ksac"))
    assert aspp == ksac | {"context": "aspp"}


@pytest.mark.parametrize("name", architectures())
def test_every_distinct_network_builds_without_weights(name):
    classes = classes_of(name)
    model = read(path_of(name)).build_model(classes, with_backbone_weights=False)
    assert model.output_shape == (None, None, None, classes)
    del model
    keras.backend.clear_session()


@pytest.mark.parametrize(
    ("name", "printed"),
    [("voc_mobilenet_v2_aspp_stage_3", 4.5), ("voc_mobilenet_v2_ksac_stage_3", 3.0)],
)
def test_trainable_parameters_are_those_of_ksac_table_1(name, printed):
    """They agree if they differ by less than one unit of the last printed digit."""
    model = read(path_of(name)).build_model(21, with_backbone_weights=False)
    assert abs(counting.parameters(model) / 1e6 - printed) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("context", "printed"), [("aspp", 54.3), ("ksac", 44.8)])
def test_all_parameters_on_xception_65_are_those_of_ksac_table_1(context, printed):
    """DeepLab's row has no flagfile; its network is KSAC's with ASPP in place of KSAC."""
    experiment = read(path_of("voc_xception_65_ksac_stage_3")).replace(context=context, merge=None)
    model = experiment.build_model(21, with_backbone_weights=False)
    assert abs(counting.parameters(model, trainable=False) / 1e6 - printed) < 0.1
