import pytest

from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.plugins import registry
from recalign.preparation.pipeline import prepare_dataset

from .reads import items_of

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu1\ti1\t3\t10\nu1\ti2\t5\t20\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "i1\tHeat\t1995\tAction Crime\n"
    'i2\t"Alien\t\t\n'
)


def folder(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / name.replace("_", ".")).write_text(text)
    return tmp_path


def read(path, **params):
    raw = registry.create("source", "recbole", params).read(path, 0)
    return items_of(raw), raw.events.collect().to_dicts()


def test_typed_headers_titles_years_and_genres(tmp_path):
    items, events = read(folder(tmp_path, x_inter=INTER, x_item=ITEM))
    assert items == [
        {"item_id": "i1", "title": "Heat", "genres": ["Action", "Crime"], "text": "", "suffix": "1995"},
        {"item_id": "i2", "title": '"Alien', "genres": [], "text": "", "suffix": None},
    ]
    assert events[1] == {"user_id": "u1", "item_id": "i2", "timestamp": 20.0, "rating": 5.0}


def test_the_inter_file_itself_may_be_named(tmp_path):
    path = folder(tmp_path, x_inter=INTER, x_item=ITEM, y_inter=INTER)
    assert len(read(path / "x.inter")[0]) == 2
    with pytest.raises(UserError, match="x.inter, y.inter"):
        read(path)


def test_without_an_item_file_ids_are_titles(tmp_path):
    items, _ = read(folder(tmp_path, x_inter=INTER))
    assert [item["title"] for item in items] == ["i1", "i2"]


def test_missing_files_and_fields(tmp_path):
    with pytest.raises(UserError, match="holds none"):
        read(tmp_path)
    path = folder(tmp_path, x_inter=INTER, x_item=ITEM)
    with pytest.raises(UserError, match="no column 'titel'") as error:
        read(path, title="titel")
    assert "movie_title" in error.value.hint
    with pytest.raises(UserError, match="no column 'when'"):
        read(path, timestamp="when")


def test_rows_of_both_files_are_read_or_refused(tmp_path):
    path = folder(tmp_path, x_inter=INTER + "u1\ti1\tx\t30\nu1\ti1\n", x_item=ITEM + "\tNameless\t\t\n")
    raw = registry.create("source", "recbole").read(path, 0)
    events, items = raw.accounts
    assert (events.read, events.records, items.read, items.records) == (2, 4, 2, 3)
    assert events.refused["rating is not a number"].first == ("row 3: rating = 'x' is not a number",)
    assert events.refused["a wrong number of fields"].first == ("row 4: 2 fields, but the header has 4",)
    assert items.refused["item_id is not an id"].count == 1
    assert raw.items.collect()["item_id"].to_list() == ["i1", "i2"]


def test_ratings_can_be_ignored(tmp_path):
    items, events = read(folder(tmp_path, x_inter=INTER + "u1\ti1\tx\t30\n", x_item=ITEM), rating="none")
    assert len(events) == 3 and "rating" not in events[0]


def test_ml_100k_is_whole_and_its_titles_are_told_apart(shared_data, tmp_path):
    options = {"task": "list", "split": "user", "folds": 5, "history": 50, "relevance": "rating>=4"}
    counts = prepare_dataset("recbole", shared_data("ml-100k"), tmp_path / "out", options=options)["counts"]
    assert (counts["users"], counts["items"], counts["interactions"]) == (943, 1682, 100_000)
    assert (counts["collisions"], counts["told_apart_by_suffix"], counts["told_apart_by_id"]) == (23, 5, 18)
    dataset = PreparedDataset(tmp_path / "out")
    titles = dataset.catalogue.titles
    assert {"Toy Story", "Sabrina (1995)", "Sabrina (1954)", "Chasing Amy (1997) [246]"} <= set(titles)
    assert len(set(titles)) == 1682
    assert len(dataset.catalogue.genre_names) == 18  # the genre "unknown" of two items is none
    assert (counts["genre_separator"], counts["genre_placeholders"], counts["genres"]["items_without"]) == (" ", 2, 2)
    assert (counts["exact_duplicates"], counts["repeated_items"], counts["lookalike_titles"]["count"]) == (0, 0, 0)
    assert (len(dataset.rows("valid")), len(dataset.rows("test"))) == (94, 189)
    assert dataset.excludes_history()


def test_five_folds_of_ml_100k_test_all_943_users_once(shared_data, tmp_path):
    tested = []
    for fold in range(1, 6):
        options = {"task": "list", "split": "user", "folds": 5, "fold": fold}
        prepare_dataset("recbole", shared_data("ml-100k"), tmp_path / str(fold), options=options)
        tested += PreparedDataset(tmp_path / str(fold)).rows("test").users
    assert len(tested) == len(set(tested)) == 943


# ------------------------------------------------------------ benchmark files, and files written in other ways


def benchmark(tmp_path, *, lists):
    head = "user_id:token\titem_id:token" + ("\titem_id_list:token_seq" if lists else "\ttimestamp:float") + "\n"
    rows = {"train": [], "valid": [], "test": []}
    for user in range(8):
        past = []
        for place, item in enumerate(f"i{(user + n) % 7}" for n in range(5)):
            last = " ".join(past) if lists else str(100 * place + user)
            split = {3: "valid", 4: "test"}.get(place, "train")
            rows[split].append(f"u{user}\t{item}\t{last}\n")
            past.append(item)
    for split, lines in rows.items():
        (tmp_path / f"x.{split}.inter").write_text(head + "".join(lines))
    titles = "".join(f"i{n}\tFilm {n}\n" for n in range(7))
    (tmp_path / "x.item").write_text("item_id:token\tmovie_title:token_seq\n" + titles)
    return tmp_path


@pytest.mark.parametrize("name", ["", "x.item", "x.valid.inter"])
def test_benchmark_files_with_lists_are_the_windows_whichever_is_named(tmp_path, name):
    raw = tmp_path / "raw"
    raw.mkdir()
    prepare_dataset("recbole", benchmark(raw, lists=True) / name, tmp_path / "out")
    dataset = PreparedDataset(tmp_path / "out")
    row = dataset.rows("test")[0]
    assert [dataset.catalogue.titles[i] for i in [*row.history, *row.targets]] == [f"Film {n}" for n in range(5)]
    assert [len(dataset.rows(split)) for split in ("train", "valid", "test")] == [16, 8, 8]


def test_benchmark_files_without_lists_that_hold_out_the_last_items_are_leave_one_out(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    counts = prepare_dataset("recbole", benchmark(raw, lists=False), tmp_path / "out")["counts"]
    dataset = PreparedDataset(tmp_path / "out")
    assert (counts["interactions"], dataset.info["options"]["split"]) == (40, "provided")
    prepare_dataset("recbole", raw, tmp_path / "same", options={"split": "leave-one-out"})
    for name in ("train", "valid", "test"):
        assert rows_of(tmp_path / "out", name) == rows_of(tmp_path / "same", name)
    assert rows_of(tmp_path / "out", "test")[0] == ("u0", "i0 i1 i2 i3", "i4")


def rows_of(folder, name):
    """User, history and targets of each row."""
    dataset = PreparedDataset(folder)
    ids = dataset.catalogue.item_ids
    return [
        (row.user_id, " ".join(ids[i] for i in row.history), " ".join(ids[i] for i in row.targets))
        for row in dataset.rows(name)
    ]


TIMES = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}
AT_RANDOM = {"train": "a c e f|b c|f e a", "valid": "d|a|c", "test": "b|d f|"}
"""Items of the users u0, u1 and u2 in each file; their letters tell their times."""


def at_random(folder, files=AT_RANDOM, *, times=True):
    """Benchmark files of a random split, rows in the order of their items or against it."""
    folder.mkdir()
    for name, users in files.items():
        rows = "".join(
            f"u{user}\t{item}" + (f"\t{TIMES[item]}" if times else "") + "\n"
            for user, items in enumerate(users.split("|"))
            for item in items.split()
        )
        head = "user_id:token\titem_id:token" + ("\ttimestamp:float" if times else "") + "\n"
        (folder / f"x.{name}.inter").write_text(head + rows)
    return folder


def test_a_random_split_is_reproduced_from_its_files(call, tmp_path):
    code, told = call("prepare", "recbole", at_random(tmp_path / "raw"), "--out", tmp_path / "out", "--history", 3)
    assert code == 0, told
    assert "do not hold out what comes last in time" in " ".join(told.split())
    assert rows_of(tmp_path / "out", "train") == [
        *(("u0", "a", "c"), ("u0", "a c", "e"), ("u0", "a c e", "f")),
        ("u1", "b", "c"),
        *(("u2", "a", "e"), ("u2", "a e", "f")),
    ]
    assert rows_of(tmp_path / "out", "valid") == [("u0", "c e f", "d"), ("u1", "b c", "a"), ("u2", "a e f", "c")]
    assert rows_of(tmp_path / "out", "test") == [("u0", "c e f", "b"), ("u1", "b c", "d"), ("u1", "b c", "f")]
    counts = PreparedDataset(tmp_path / "out").info["counts"]
    assert (counts["training_interactions"], counts["interactions"]) == (9, 15)
    assert counts["held_out_without_row"] == {"valid": 0, "test": 0}
    assert [counts["rows"][name]["rows_cut_in_tie"] for name in ("valid", "test")] == [0, 0]


def test_a_random_split_without_times_has_the_order_of_its_rows(tmp_path):
    at_random(tmp_path / "raw", times=False)
    prepare_dataset("recbole", tmp_path / "raw", tmp_path / "out")
    assert rows_of(tmp_path / "out", "valid") == [("u0", "a c e f", "d"), ("u1", "b c", "a"), ("u2", "f e a", "c")]
    assert rows_of(tmp_path / "out", "test") == [("u0", "a c e f", "b"), ("u1", "b c", "d"), ("u1", "b c", "f")]
    with pytest.raises(UserError, match="no column 'when'"):
        registry.create("source", "recbole", {"timestamp": "when"}).read(tmp_path / "raw", 0)


def test_held_out_interactions_that_are_in_no_row_are_counted_and_another_split_can_be_asked_for(call, tmp_path):
    files = {**AT_RANDOM, "train": "a c e f||f e a"}
    raw, options = at_random(tmp_path / "raw", files), ("--out", tmp_path / "out", "--split", "provided")
    code, told = call("prepare", "recbole", raw / "x.test.inter", *options)
    assert (code, "1 valid and 2 test interactions are no row's target" in " ".join(told.split())) == (0, True), told
    assert rows_of(tmp_path / "out", "test") == [("u0", "a c e f", "b")]
    code, told = call("prepare", "recbole", raw, "--out", tmp_path / "last", "--split", "leave-one-out")
    assert (code, rows_of(tmp_path / "last", "test")[0]) == (0, ("u0", "a b c d e", "f")), told


def test_without_a_file_of_valid_the_latest_training_interactions_validate(call, tmp_path):
    files = {name: AT_RANDOM[name] for name in ("train", "test")}
    raw = at_random(tmp_path / "raw", files)
    code, told = call("prepare", "recbole", raw, "--out", tmp_path / "out", "--valid-share", 0.2)
    assert code == 0, told
    assert rows_of(tmp_path / "out", "valid") == [("u0", "a c e", "f"), ("u2", "a e", "f")]
    assert rows_of(tmp_path / "out", "test") == [("u0", "a c e", "b"), ("u1", "b c", "d"), ("u1", "b c", "f")]
    code, told = call("prepare", "recbole", at_random(tmp_path / "no", files, times=False), "--out", tmp_path / "2")
    assert (code, "x.valid.inter" in told) == (2, True), told


def test_a_whole_log_goes_before_benchmark_files_beside_it(tmp_path):
    path = folder(benchmark(tmp_path, lists=True), x_inter=INTER)
    assert [file.name for file in registry.create("source", "recbole").files(path)] == ["x.inter", "x.item"]
    (tmp_path / "x.item").unlink()
    assert len(read(path)[1]) == 2


@pytest.mark.parametrize("genres", ["Film Noir|Sci-Fi", "Film Noir, Sci-Fi", "Film Noir;Sci-Fi"])
def test_genres_with_blanks_in_them_are_separated_by_what_else_there_is(tmp_path, genres):
    items = f"item_id:token\ttitle:token_seq\tgenre:token_seq\ni1\tHeat\t{genres}\ni2\tAlien\tHorror\n"
    assert read(folder(tmp_path, x_inter=INTER, x_item=items))[0][0]["genres"] == ["Film Noir", "Sci-Fi"]


def test_another_field_separator(tmp_path):
    path = folder(tmp_path, x_inter=INTER.replace("\t", ","), x_item=ITEM.replace("\t", ","))
    assert len(read(path, separator=",")[1]) == 2
