"""`hallo3 curate` and `hallo3 dataset refilter`: run, and say what came of it."""

import sys
from pathlib import Path

from cluster.launch import LaunchError, ray_session
from data_pipeline.config import CurationConfig
from data_pipeline.config_file import ConfigError
from data_pipeline.dataset import Dataset, DatasetError
from data_pipeline.sources import SourcesError
from data_pipeline.storage import location

PROBLEM, WRONG_INPUT, TOO_MANY_FAILED = 1, 2, 4


def run(config: CurationConfig, sample: int | None) -> int:
    """Curate, or with `sample` only measure a few sources and say what all would yield and cost."""
    from data_pipeline.curate import BackendMissing, TooManyErrors, curate, pilot, prepare
    from data_pipeline.excluded_people import ExcludedPeopleError
    from data_pipeline.labels import LabelsError
    from data_pipeline.pack import PackError
    from data_pipeline.show import lines_of_pilot, show
    from data_pipeline.weights import WeightsUnavailable

    try:
        prepare(config)
        with ray_session(config.ray):
            if sample is not None:
                for line in lines_of_pilot(pilot(config, sample)):
                    print(line)
                return 0
            packed = curate(config)
    except (BackendMissing, ExcludedPeopleError, LabelsError, SourcesError) as error:
        return _fail(error, WRONG_INPUT)
    except (LaunchError, PackError, WeightsUnavailable) as error:
        return _fail(error, PROBLEM)
    except TooManyErrors as error:
        return _fail(error, TOO_MANY_FAILED)
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}; the same command goes on from here", PROBLEM)
    print("\n".join(show(Dataset.open(config.output))))
    if not packed.changed:
        print("nothing changed: the version before is the current one")
    print(f"report: {location(config.output) / 'report.html'}")
    return 0


def refilter(dataset: Dataset, overrides: list[str], make_version: bool, labels: Path | None = None) -> int:
    """Say what other thresholds and labels would change; with `make_version`, change it."""
    from contextlib import nullcontext

    from data_pipeline.labels import LabelsError
    from data_pipeline.pack import PackError
    from data_pipeline.refilter import apply, preview, with_filters, with_labels
    from data_pipeline.show import lines_of_preview
    from data_pipeline.weights import WeightsUnavailable

    if not overrides and labels is None:
        nothing = "refilter: nothing to change; give filters.KEY=VALUE or --labels CSV"
        return _fail(ConfigError(nothing), WRONG_INPUT)
    try:
        config = with_filters(dataset, overrides)
        words = with_labels(dataset, labels)
    except (ConfigError, LabelsError) as error:
        return _fail(error, WRONG_INPUT)
    change = preview(dataset, config, words)
    print("\n".join(lines_of_preview(change)))
    if not make_version:
        print("a preview: nothing was written; --apply makes the new version")
        return 0
    try:
        with ray_session(config.ray) if change.to_measure_uris else nullcontext():
            packed = apply(dataset, config, change.to_measure_uris, words)
    except (DatasetError, LaunchError, PackError, SourcesError, WeightsUnavailable) as error:
        return _fail(error, PROBLEM)
    print(f"version {packed.version}" if packed.changed else "nothing changed")
    return 0


def split(dataset: Dataset, overrides: list[str], make_version: bool) -> int:
    """Say what other splits would change; with `make_version`, change it."""
    from data_pipeline.excluded_people import ExcludedPeopleError
    from data_pipeline.pack import PackError
    from data_pipeline.resplit import apply, preview, with_shares
    from data_pipeline.show import lines_of_resplit
    from data_pipeline.weights import WeightsUnavailable

    try:
        config = with_shares(dataset, overrides)
        print("\n".join(lines_of_resplit(preview(dataset, config))))
        if not make_version:
            print("a preview: nothing was written; --apply makes the new version")
            return 0
        packed = apply(dataset, config)
    except (ConfigError, ExcludedPeopleError) as error:
        return _fail(error, WRONG_INPUT)
    except (PackError, WeightsUnavailable) as error:
        return _fail(error, PROBLEM)
    print(f"version {packed.version}" if packed.changed else "nothing changed")
    return 0


def _fail(error: Exception | str, status: int) -> int:
    print(f"hallo3: {error}", file=sys.stderr)
    return status
