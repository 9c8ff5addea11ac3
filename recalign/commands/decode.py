"""`recalign decode`: a model's recommendations for a split, as predictions that `eval` measures."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recalign import console
from recalign.commands.shared_options import (
    AttentionOption,
    DeviceOption,
    DtypeOption,
    ExcludeHistoryOption,
    JsonOption,
    LoadIn4bitOption,
    LoadIn8bitOption,
    ModelOption,
    NumProcessesOption,
    OutOption,
    OverwriteOption,
    ParamOption,
    QuietOption,
    ResumeOption,
    SeedOption,
    SizeOption,
    SplitOption,
    TemplateVarOption,
    ThreadsOption,
    TrustOption,
    VaryOption,
    VaryRowsOption,
    hardware,
    varied,
)
from recalign.errors import UserError, did_you_mean
from recalign.runs.lineage import KEY
from recalign.workspace import RunFolder, home

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recalign.api import Decoder, Row
    from recalign.data.dataset import PreparedDataset
    from recalign.models.hardware import Hardware
    from recalign.models.policy import Policy
    from recalign.runs.lineage import Lineage
    from recalign.variations import Varied


def decode(
    *,
    data: Annotated[
        Path | None, typer.Option(help="Prepared dataset (default: the one that the model was trained on).")
    ] = None,
    model: ModelOption = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            help="beam, exact, greedy, sample, bon, d3, igd, judge, head, list or a plugin's decoder (default: beam on "
            "next, greedy on list; on rank the trained head, or else judge)."
        ),
    ] = None,
    param: ParamOption = None,
    split: SplitOption = "test",
    size: SizeOption = None,
    exclude_history: ExcludeHistoryOption = "auto",
    limit: Annotated[
        int | None, typer.Option(help="Maximum number of rows to answer, drawn by seed (default: all).", min=1)
    ] = None,
    user: Annotated[str | None, typer.Option(help="Answer the rows of this user alone.")] = None,
    vary: VaryOption = None,
    vary_rows: VaryRowsOption = None,
    batch_size: Annotated[int, typer.Option(help="Number of rows that are decoded between two saves.", min=1)] = 256,
    token_budget: Annotated[
        int, typer.Option(help="Maximum number of prompt and list tokens in memory at once.", min=1)
    ] = 32768,
    template_var: TemplateVarOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    attn_implementation: AttentionOption = None,
    load_in_4bit: LoadIn4bitOption = False,
    load_in_8bit: LoadIn8bitOption = False,
    trust_remote_code: TrustOption = False,
    num_processes: NumProcessesOption = 1,
    threads: ThreadsOption = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Recommend items to the users of a split.

    Examples:
    - recalign decode --model runs/sft

    - recalign decode --model runs/sft --decoder bon -p n=4 -p reward=ild

    - recalign decode --model runs/sft --vary order=10 --vary length=1,5,10

    - recalign decode --model runs/sft --user 42
    """
    from recalign.data.dataset import PreparedDataset
    from recalign.decoding.batches import check_task
    from recalign.decoding.decode_run import MAKES
    from recalign.evaluation.examples import show_examples
    from recalign.models.trained_on import dataset_of_model
    from recalign.models.weights import check_model, modules_of
    from recalign.params import parse_assignments
    from recalign.plugins import registry
    from recalign.runs.lifecycle import Asked, choose_folder, perform
    from recalign.tasks import find_task
    from recalign.text.chat_templates import parse_variables
    from recalign.training.processes import relaunch

    name = model or newest_model()
    check_model(name, trust_remote_code)
    dataset = dataset_of_model(name) if data is None else PreparedDataset(data)
    if num_processes > 1:
        relaunch(num_processes, data=dataset.path, model=name)
    task = find_task(dataset.task)
    usual = task.default_decoder(modules_of(name))
    chosen = registry.create("decoder", decoder or usual, parse_assignments(param or []))
    check_task(chosen, task)
    where = hardware(device, attn_implementation, load_in_4bit, load_in_8bit, threads)
    asked = {
        "model": name,
        "data": str(dataset.path),
        "decoder": chosen.name,
        "params": chosen.params.model_dump(),
        "split": split,
        "size": task.checked_size(size, dataset.list_length, len(dataset.catalogue)),
        "exclude_history": dataset.excludes_history(exclude_history),
        "limit": limit,
        "batch_size": batch_size,
        "template_vars": parse_variables(template_var or []),
        "dtype": dtype,
        "hardware": asdict(where),
        "seed": seed,
        **({} if user is None else {"user": user}),
    }
    rows = _asked_rows(dataset, split, user, limit, seed)
    changes, again = varied(vary, vary_rows, rows, seed)
    asked |= changes

    def work(policy: Policy) -> dict[str, Any]:
        return _decode(run.path, policy, dataset, chosen, rows, again, asked, token_budget)

    def ready() -> Policy:
        return _loaded(dataset, asked, where, trust_remote_code)

    facts = {"seed": seed, KEY: _lineage(asked, usual).as_dict()}
    asking = Asked("decode", asked, _inputs(name, dataset, chosen), MAKES, facts)
    default = _default_folder(name) / f"decode-{chosen.name}-{split}{_transferred(name, dataset)}"
    run = choose_folder(out, default, asking, overwrite=overwrite)
    results = perform(run, asking, ready, work, resume=resume, overwrite=overwrite)
    show_examples(results.get("examples", ()))
    return {"out": str(run.path), **results}


def _loaded(dataset: PreparedDataset, asked: Mapping[str, Any], where: Hardware, trust_remote_code: bool) -> Policy:
    """Join the other processes, if any, and load the model."""
    from recalign.models.policy import load_policy
    from recalign.training.processes import connect

    connect(where.place())
    return load_policy(
        asked["model"],
        dataset,
        template_vars=asked["template_vars"],
        seed=asked["seed"],
        dtype=asked["dtype"],
        trust_remote_code=trust_remote_code,
        hardware=where,
        transfer=True,
    )


def _asked_rows(dataset: PreparedDataset, split: str, user: str | None, limit: int | None, seed: int) -> Sequence[Row]:
    """The rows to answer, in the order of the split.

    Raises:
        UserError: the user has none; similar ids are suggested.
    """
    import numpy as np

    rows = dataset.rows(split)
    if user is not None:
        places = rows.of_user(user)
        if not places:
            raise UserError(
                f"{dataset.path} has no row of a user '{user}' in the split '{split}'.", did_you_mean(user, rows.users)
            )
    else:
        places = list(range(len(rows)))
    if limit is not None and limit < len(places):
        places = sorted(np.random.default_rng(seed).permutation(places)[:limit].tolist())
    return [rows[place] for place in places]


def _decode(
    folder: Path,
    policy: Policy,
    dataset: PreparedDataset,
    decoder: Decoder,
    rows: Sequence[Row],
    varied: Sequence[Varied],
    asked: dict[str, Any],
    token_budget: int,
) -> dict[str, Any]:
    """Decode, varied rows first, and say how it went; the results, which the first of several processes has."""
    from recalign.decoding.decode_run import DecodeRun
    from recalign.runs.predictions import PREDICTIONS_FILE
    from recalign.training.processes import process, wait_for_all

    def answer(where: Path, what: str, rows: Sequence[Row]) -> dict[str, Any]:
        decoding = DecodeRun(
            where,
            policy,
            dataset,
            decoder,
            size=asked["size"],
            seed=asked["seed"],
            batch_size=asked["batch_size"],
            share=process(),
            wait=wait_for_all,
            what=what,
        )
        return decoding(rows, asked["exclude_history"], token_budget)

    for each in varied:
        if not (folder / each.folder / PREDICTIONS_FILE).is_file():  # an interrupted run left what it finished
            answer(folder / each.folder, f"{each.name} {each.value}", each.rows)
    results = answer(folder, decoder.name, rows)
    if console.speaks():
        from recalign.evaluation.examples import example_lists

        console.say(policy.cached_trie.line)
        _summarise(folder, results)
        results["examples"] = example_lists(folder, rows, dataset.catalogue, seed=asked["seed"])
    return results


def _inputs(name: str, dataset: PreparedDataset, decoder: Decoder) -> dict[str, str]:
    """Hashes of what decoding reads."""
    from recalign.models.builtin import is_from_scratch
    from recalign.models.weights import find_model
    from recalign.workspace import file_hash

    found = None if is_from_scratch(name) else find_model(name)
    read = {f"decoder {file}": file_hash(file) for file in decoder.files if file.exists()}
    return {"data": dataset.hash, "model": file_hash(found) if found else name, **read}


def _lineage(asked: dict[str, Any], usual: str) -> Lineage:
    """Where the predictions come from; a decoder that is not the usual one stands in the name."""
    from recalign.runs.lineage import of_model

    facts = {name: asked[name] for name in ("data", "split", "size", "exclude_history")}
    lineage = of_model(asked["model"], **facts)
    if asked["decoder"] == usual:
        return lineage
    return replace(lineage, label=f"{lineage.label} + {asked['decoder']}")


def newest_model() -> str:
    """Return the newest finished run of the workspace that holds a model.

    Raises:
        UserError: there is none.
    """
    runs = [RunFolder(file.parent.parent) for file in home().glob("**/model/recalign.json")]
    done = [run for run in runs if run.done]
    if not done:
        raise UserError(
            f"The workspace {home()} holds no trained model.", "Train one with `recalign sft`, or name one."
        )
    return str(max(done, key=lambda run: run.record["finished"]).path)


def _default_folder(model: str) -> Path:
    """A run folder itself, or the workspace for a model that lies elsewhere."""
    return Path(model) if RunFolder(Path(model)).record.get("command") in ("sft", "align") else home()


def _transferred(name: str, dataset: PreparedDataset) -> str:
    """What the folder is named by besides, where a model answers another dataset than it was trained on."""
    from recalign.models.builtin import is_from_scratch
    from recalign.models.settings import is_transfer, recorded_settings
    from recalign.models.weights import find_model

    recorded = {} if is_from_scratch(name) else recorded_settings(find_model(name))
    return f"-on-{dataset.path.resolve().name}" if is_transfer(recorded, dataset) else ""


def _summarise(folder: Path, results: dict[str, Any]) -> None:
    cost, oracle = results["cost"], " (an oracle: it reads the targets)" if results["oracle"] else ""
    console.say(
        f"{folder}: {results['rows']} rows by {results['decoder']}{oracle}, {cost['prompts_per_second']:.1f} rows and "
        f"{cost['tokens_per_second']:,.0f} tokens a second, {cost['forward_passes']} forward passes, peak memory "
        f"{cost['peak_memory_mb']:.0f} MB."
    )
