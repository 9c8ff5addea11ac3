import shutil
from dataclasses import fields

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from recalign.text import trie_cache as kept_module
from recalign.text.item_tokens import TitleTokens
from recalign.text.trie import TitleTrie
from recalign.text.trie_cache import cached_trie
from tests.decoding.doubles import END, SEPARATOR, random_paths
from tests.disks import full_disk


def titles_of(paths):
    return TitleTokens(paths=paths, separator=np.array([SEPARATOR]), end=END)


TITLES = titles_of(random_paths(60, seed=3))


def same(one, two):
    pairs = [(getattr(one, field.name), getattr(two, field.name)) for field in fields(TitleTrie)]
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def only_file(folder):
    (file,) = folder.iterdir()  # nothing else, such as temporary files, is left behind
    return file


def changed(file, **facts):
    """Write a trie file again with other metadata."""
    with safe_open(file, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
        facts = {**opened.metadata(), **facts}
    save_file(tensors, file, facts)


def test_what_is_read_equals_what_was_built(tmp_path):
    built = cached_trie(TITLES, tmp_path / "tries")
    read = cached_trie(TITLES, tmp_path / "tries")
    assert (built.read, read.read) == (False, True)
    assert same(built.trie, TitleTrie.build(TITLES))
    assert same(read.trie, built.trie)
    assert read.trie.longest == built.trie.longest
    assert only_file(tmp_path / "tries").name == f"{TITLES.fingerprint}.safetensors"


def test_what_users_see(tmp_path):
    kept = cached_trie(TITLES, tmp_path)
    facts = kept.as_dict()
    assert (facts["titles"], facts["nodes"], facts["read"]) == (60, kept.trie.nodes, False)
    assert facts["megabytes"] * 2**20 == sum(getattr(kept.trie, field.name).nbytes for field in fields(TitleTrie))
    assert f"60 titles, {kept.trie.nodes} nodes" in kept.line
    assert "built in" in kept.line
    assert "read in" in cached_trie(TITLES, tmp_path).line


def test_another_tokenizer_has_a_file_of_its_own(tmp_path):
    cached_trie(TITLES, tmp_path)
    other = titles_of([path + 1 for path in TITLES.paths])
    assert not cached_trie(other, tmp_path).read
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut off", "garbage", "empty", "one byte", "stale", "old format", "lacks a tensor"])
def test_a_file_that_cannot_be_trusted_is_built_again(tmp_path, damage):
    cached_trie(TITLES, tmp_path)
    file = only_file(tmp_path)
    whole = file.read_bytes()
    if damage == "stale":
        other = titles_of(random_paths(60, seed=4))
        cached_trie(other, tmp_path / "other")
        only_file(tmp_path / "other").rename(file)
        (tmp_path / "other").rmdir()
    elif damage == "old format":
        changed(file, format="0")
    elif damage == "lacks a tensor":
        with safe_open(file, framework="pt") as opened:
            facts, lo = opened.metadata(), opened.get_tensor("lo").clone()
        save_file({"lo": lo}, file, facts)
    else:
        flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
        file.write_bytes({"cut off": whole[:-50], "garbage": b"x" * 999, "empty": b"", "one byte": flipped}[damage])
    again = cached_trie(TITLES, tmp_path)
    assert not again.read
    assert same(again.trie, TitleTrie.build(TITLES))
    only_file(tmp_path)
    assert cached_trie(TITLES, tmp_path).read


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "tries").write_text("a file where the folder would be")
    kept = cached_trie(TITLES, tmp_path / "tries")
    assert not kept.read
    assert same(kept.trie, TitleTrie.build(TITLES))


def test_a_folder_that_cannot_even_be_looked_into_is_done_without(tmp_path):
    kept = cached_trie(TITLES, tmp_path / ("x" * 300))  # a name too long: as little can be asked as of a private folder
    assert not kept.read
    assert same(kept.trie, TitleTrie.build(TITLES))


def test_two_processes_may_keep_it_at_once(tmp_path, monkeypatch):
    write, others = kept_module._write, []

    def slowly(*arguments):
        write(*arguments)
        with monkeypatch.context() as patch:  # meanwhile, another process from its beginning to its end
            patch.setattr(kept_module, "_write", write)
            patch.setattr("os.getpid", lambda: -1)
            others.append(cached_trie(TITLES, tmp_path))

    monkeypatch.setattr(kept_module, "_write", slowly)
    assert not cached_trie(TITLES, tmp_path).read
    assert [other.read for other in others] == [False]
    only_file(tmp_path)
    assert cached_trie(TITLES, tmp_path).read


def test_changed_titles_have_a_file_of_their_own(tmp_path):
    from recalign.models.policy import load_policy
    from tests.fake_dataset import TITLES as NAMES
    from tests.fake_dataset import write_dataset
    from tests.fake_models import byte_level_tokenizer, save_model

    model = save_model(tmp_path / "hub", byte_level_tokenizer(NAMES))
    tries = tmp_path / "data" / ".tries"
    for titles in (NAMES, ["Another Ship", *NAMES[1:]]):
        shutil.move(tries, tmp_path / "kept") if tries.exists() else None
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        dataset = write_dataset(tmp_path / "data", titles=titles)
        shutil.move(tmp_path / "kept", tries) if (tmp_path / "kept").exists() else None
        policy = load_policy(model, dataset)
        assert not policy.cached_trie.read
        assert same(policy.cached_trie.trie, TitleTrie.build(policy.titles))
    assert len(list(tries.iterdir())) == 2


def test_a_full_disk_is_done_without(tmp_path):
    with full_disk(1000):
        assert not cached_trie(TITLES, tmp_path).read
    assert list(tmp_path.iterdir()) == []


def test_no_folder_keeps_nothing():
    assert not cached_trie(TITLES, None).read


def test_a_policy_keeps_its_trie_with_the_dataset(tmp_path):
    from recalign.models.policy import load_policy
    from tests.fake_dataset import write_dataset

    dataset = write_dataset(tmp_path / "data")
    policy = load_policy("builtin:tiny", dataset)
    assert not policy.cached_trie.read
    assert policy.cached_trie is policy.cached_trie
    assert load_policy("builtin:tiny", dataset).cached_trie.read
    assert only_file(tmp_path / "data" / ".tries").suffix == ".safetensors"
