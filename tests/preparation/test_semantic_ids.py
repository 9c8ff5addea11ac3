"""Semantic identifiers: determinism, collisions, neighbours, cold items, embedding files, paths and labels."""

import numpy as np
import polars as pl
import pytest

from recalign.data.catalogue import Catalogue
from recalign.data.dataset import PreparedDataset
from recalign.data.item_vectors import item_embeddings, read_embeddings
from recalign.decoding.engine import PolicyEngine
from recalign.errors import UserError
from recalign.models.policy import load_policy
from recalign.models.tokenizers import add_item_tokens, train_tokenizer
from recalign.preparation.pipeline import prepare_dataset
from recalign.preparation.semantic_ids import (
    codebook_size,
    residual_codes,
    semantic_codes,
    tell_apart,
)
from recalign.text.item_tokens import added_tokens, title_tokens
from recalign.text.trie import TitleTrie

GENRES = ["space robot laser", "castle knight sword", "ghost house night"]


def shelf(items=60, seed=0):
    """Items of three genres, with users who stay within one; the last three items are in no interaction."""
    generator = np.random.default_rng(seed)
    genre = np.arange(items) % 3
    titles = [f"{GENRES[g]} volume {item}" for item, g in enumerate(genre)]
    users = np.repeat(np.arange(90), 6)
    consumed = [generator.choice(np.flatnonzero(genre[:-3] == user % 3), 6) for user in range(90)]
    events = np.concatenate(consumed)
    popularity = np.bincount(events, minlength=items)
    ids = [f"i{item}" for item in range(items)]
    return Catalogue(ids, titles, [()] * items, [""] * items, popularity), users, events, genre


def test_the_same_seed_gives_the_same_codes():
    catalogue, users, events, _ = shelf()
    first, second = (semantic_codes(catalogue, users, events, seed=3) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_items_of_one_genre_share_their_first_code_more_often_than_others():
    catalogue, users, events, genre = shelf()
    codes = semantic_codes(catalogue, users, events, codebook=8, seed=0)
    first = np.array([code[0] for code in codes])
    same_code, same_genre = first[:, None] == first, genre[:, None] == genre
    others = ~np.eye(len(codes), dtype=bool)
    assert same_code[same_genre & others].mean() > 0.2
    assert same_code[~same_genre].mean() == 0.0


def test_an_item_without_interactions_is_placed_by_its_text_not_by_being_new():
    catalogue, users, events, genre = shelf()
    vectors = item_embeddings(catalogue.titles, users, events, seed=0)
    for new in range(57, 60):
        nearest = np.argsort(((vectors[:57] - vectors[new]) ** 2).sum(axis=1))[:10]
        assert (genre[nearest] == genre[new]).all()


def test_the_first_level_of_well_separated_points_is_their_cluster_and_later_levels_what_is_left():
    centres = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    offsets = np.array([[1.0, 0.0], [-1.0, 0.0]])
    vectors = (centres[:, None] + offsets).reshape(6, 2)
    codes = residual_codes(vectors, levels=2, codebook=3, seed=0)
    assert [len(set(codes[pair, 0])) for pair in ([0, 1], [2, 3], [4, 5])] == [1, 1, 1]
    assert len(set(codes[::2, 0])) == 3
    assert len(set(codes[::2, 1])) == 1  # the residual (1, 0) of every centre
    assert codes[0, 1] != codes[1, 1]


@pytest.mark.parametrize("scale", [2.0**-300, 2.0**-40, 2.0**40])
def test_codes_do_not_depend_on_the_scale_of_the_embeddings(scale):
    vectors = np.random.default_rng(0).normal(size=(40, 5))
    plain, scaled = (residual_codes(part, levels=3, codebook=4, seed=0) for part in (vectors, vectors * scale))
    assert scaled.tolist() == plain.tolist()


def test_equal_vectors_cost_one_cluster_and_no_more():
    codes = residual_codes(np.ones((5, 3)), levels=2, codebook=4, seed=0)
    assert (codes == 0).all()


def test_items_that_share_a_code_get_one_more_token_by_popularity():
    codes = np.array([[1, 2], [0, 0], [1, 2], [1, 2]])
    apart = tell_apart(codes, np.array([5, 9, 7, 5]))
    assert [code.tolist() for code in apart] == [[1, 2, 1], [0, 0], [1, 2, 0], [1, 2, 2]]


def test_codes_are_unique_and_none_begins_another_even_when_most_collide():
    catalogue, users, events, _ = shelf()
    codes = [tuple(code.tolist()) for code in semantic_codes(catalogue, users, events, levels=2, codebook=2)]
    assert len(set(codes)) == len(codes)
    assert not any(a != b and b[: len(a)] == a for a in codes for b in codes)


def test_the_codebook_leaves_room_and_is_no_larger_than_256():
    assert codebook_size(160, 3) == 32
    assert codebook_size(2414, 3) == 64
    assert codebook_size(10**6, 3) == 256


def test_trie_paths_are_the_labels_and_need_no_separator():
    catalogue, users, events, _ = shelf()
    catalogue = Catalogue(**{**vars(catalogue), "codes": semantic_codes(catalogue, users, events)})
    tokenizer = train_tokenizer([])
    new = add_item_tokens(tokenizer, catalogue, "semantic")
    titles = title_tokens(catalogue, tokenizer, "semantic")
    trie = TitleTrie.build(titles)
    assert len(titles.separator) == 0
    assert tokenizer.convert_ids_to_tokens(titles.paths[7].tolist()) == added_tokens(catalogue, "semantic")[7]
    assert {token for path in titles.paths for token in path.tolist()} == set(new)
    items = [7, 3, 59]
    assert titles.parse(titles.response(items)) == items
    for item, path in enumerate(titles.paths):
        nodes = trie.path_node[trie.path_start[item] : trie.path_start[item + 1]].long()
        assert trie.child_token[nodes - 1].tolist() == path.tolist()
        assert trie.item_at[nodes[-1]] == item


def test_adding_tokens_twice_adds_nothing():
    catalogue, users, events, _ = shelf()
    catalogue = Catalogue(**{**vars(catalogue), "codes": semantic_codes(catalogue, users, events)})
    tokenizer = train_tokenizer([])
    first = add_item_tokens(tokenizer, catalogue, "semantic")
    names = tokenizer.convert_ids_to_tokens(list(first))
    assert names == sorted(names, key=lambda name: tuple(map(int, name.strip("<s>").split("_"))))
    assert list(add_item_tokens(tokenizer, catalogue, "semantic")) == []


def test_a_dataset_without_codes_is_told_to_be_prepared_again():
    with pytest.raises(UserError, match="no semantic identifiers"):
        added_tokens(shelf()[0], "semantic")


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_embedding_files_are_matched_by_item_id(tmp_path, suffix):
    file = tmp_path / f"vectors{suffix}"
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    if suffix == ".npz":
        np.savez(file, item_id=np.array(["b", "a", "c"]), embedding=rows)
    else:
        pl.DataFrame({"item_id": ["b", "a", "c"], "embedding": rows.tolist()}).write_parquet(file)
    np.testing.assert_array_equal(read_embeddings(file, ["a", "b"]), rows[[1, 0]])
    with pytest.raises(UserError, match="no embedding for 1 items, such as item 'z'"):
        read_embeddings(file, ["a", "z"])


def test_embeddings_that_are_not_finite_or_of_unequal_length_are_refused(tmp_path):
    file = tmp_path / "vectors.parquet"
    pl.DataFrame({"item_id": ["a"], "embedding": [[1.0, float("nan")]]}).write_parquet(file)
    with pytest.raises(UserError, match="'a' holds NaN"):
        read_embeddings(file, ["a"])
    pl.DataFrame({"item_id": ["a", "b"], "embedding": [[1.0], [1.0, 2.0]]}).write_parquet(file)
    with pytest.raises(UserError, match="different lengths"):
        read_embeddings(file, ["a", "b"])


def test_files_of_another_kind_are_refused_and_nothing_is_unpickled(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_embeddings(tmp_path / "none.npz", ["a"])
    file = tmp_path / "objects.npz"
    np.savez(file, item_id=np.array(["a"], dtype=object), embedding=np.ones((1, 2)))
    with pytest.raises(UserError, match="is not readable"):
        read_embeddings(file, ["a"])
    pl.DataFrame({"id": ["a"]}).write_parquet(tmp_path / "columns.parquet")
    with pytest.raises(UserError, match="`item_id` and `embedding` are needed"):
        read_embeddings(tmp_path / "columns.parquet", ["a"])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp("semantic") / "data"
    params = {"users": 60, "events": 16, "items": 40, "genres": 4}
    prepare_dataset("synthetic", None, out, params=params, options={"identifier": "semantic"})
    return PreparedDataset(out)


def test_prepare_writes_the_codes_of_training_interactions_and_text(prepared):
    catalogue = prepared.catalogue
    frame = prepared.interactions()
    users, items = frame["user_id"].to_numpy(), frame["item"].to_numpy()
    expected = semantic_codes(catalogue, users, items, seed=prepared.info["options"]["seed"])
    assert [code.tolist() for code in catalogue.codes] == [code.tolist() for code in expected]
    shared = prepared.info["counts"]["items_sharing_a_code"]
    assert shared == sum(len(code) == 4 for code in catalogue.codes)


def test_a_model_reads_and_writes_semantic_identifiers_and_remembers_them(prepared, tmp_path):
    policy = load_policy("builtin:tiny,hidden=16,heads=2", prepared)
    rows = prepared.rows("test")[:3]
    lists = PolicyEngine(policy, prepared.catalogue, exclude_history=True).greedy(rows, list_length=2).items
    assert bool((lists >= 0).all())
    first = policy.tokenizer.convert_ids_to_tokens(policy.prompter.encode(rows[0]).tolist())
    assert first[1 : 1 + 3] == added_tokens(prepared.catalogue, "semantic")[rows[0].history[0]][:3]
    policy.save(tmp_path / "model")
    again = load_policy(tmp_path / "model", prepared)
    assert again.titles.fingerprint == policy.titles.fingerprint


def test_prompts_show_identifiers_or_titles(prepared):
    row = prepared.rows("test")[0]
    item = int(row.history[-1])
    code = "".join(added_tokens(prepared.catalogue, "semantic")[item])
    shown = {}
    for template in ("alpaca", "alpaca-titles"):
        policy = load_policy("builtin:tiny,hidden=16,heads=2", prepared, template=template)
        shown[template] = policy.tokenizer.decode(policy.prompter.encode(row)).replace(" ", "")
    title = prepared.catalogue.titles[item].replace(" ", "")
    assert code in shown["alpaca"] and title not in shown["alpaca"]
    assert title in shown["alpaca-titles"] and code not in shown["alpaca-titles"]


def test_prepare_takes_an_embedding_file_and_notices_when_it_changes(tmp_path):
    params = {"users": 60, "events": 16, "items": 40, "genres": 4}
    file = tmp_path / "vectors.npz"
    hashes = []
    for seed in (0, 0, 1):
        ids = PreparedDataset(tmp_path / "0").catalogue.item_ids if hashes else [str(item) for item in range(100)]
        rows = np.random.default_rng(seed).standard_normal((len(ids), 4))
        np.savez(file, item_id=np.array(ids), embedding=rows)
        options = {"identifier": "semantic", "semantic_embeddings": str(file)} if hashes else {}
        result = prepare_dataset("synthetic", None, tmp_path / str(len(hashes)), params=params, options=options)
        hashes.append(result["hash"])
    assert len(set(hashes)) == 3
    with pytest.raises(UserError, match="holds another run"):
        prepare_dataset("synthetic", None, tmp_path / "1", params=params, options=options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"semantic_levels": 2}, "belongs to --identifier semantic"),
        ({"identifier": "semantic", "semantic_codebook": 1}, "tells no items apart"),
        ({"identifier": "semantic", "semantic_embeddings": "none.npz"}, "does not exist"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        prepare_dataset("synthetic", None, tmp_path / "data", options=options)
    assert not (tmp_path / "data").exists()
