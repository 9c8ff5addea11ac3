# ruff: noqa: E501 (rows of the formats)
"""Small files of the exact formats that dumps and papers' repositories have, for tests of sources."""

from __future__ import annotations

import gzip
import json
import re
from datetime import datetime, timezone
from pathlib import Path

import polars as pl
import pyarrow as pa

USERS, ITEMS, LENGTH = 12, 9, 6
DAY = 86_400
START = 1_300_000_000


def log() -> list[tuple[int, int, int, int]]:
    """User, item, stars and time in seconds of every interaction: each user has six, no item twice."""
    return [
        (u, (u + 2 * n) % ITEMS, 1 + (u * n) % 5, START + DAY * (USERS * n + u))
        for u in range(USERS)
        for n in range(LENGTH)
    ]


def user(number: int) -> str:
    return f"A{number:013d}"


def asin(number: int) -> str:
    return f"B{number:09d}"


def title(number: int) -> str:
    return f"Gadget {number}"


def nested_rows() -> list[dict]:
    """A row a user, with a list of structs."""
    rows: dict[int, dict] = {}
    for u, i, r, t in log():
        row = rows.setdefault(u, {"user_id": u, "country": "AU", "history": []})
        row["history"].append({"item_id": i, "timestamp": t * 1000, "rating": float(r), "title": title(i)})
    return list(rows.values())


def pack(file: Path, data: bytes | str) -> Path:
    """Write a file, packed as its suffix says."""
    data = data.encode() if isinstance(data, str) else data
    if file.suffix == ".gz":
        data = gzip.compress(data)
    elif file.suffix == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        data = sink.getvalue().to_pybytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def json_lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def literals(rows) -> str:
    return "".join(repr(row) + "\n" for row in rows)


# ------------------------------------------------------------ Amazon


def amazon_2014(folder: Path) -> Path:
    """Reviews as JSON lines, metadata as Python literals."""
    reviews = [
        {"reviewerID": user(u), "asin": asin(i), "reviewerName": 'J. "Q" Doe', "helpful": [0, 1], "reviewText": "It's ok",
         "overall": float(r), "summary": "ok", "unixReviewTime": t, "reviewTime": "09 13, 2009"}
        for u, i, r, t in log()
    ]  # fmt: skip
    meta = [
        {"asin": asin(i), "related": {"also_bought": [asin(1)]}, "title": title(i), "price": 9.5, "description": "It's good.",
         "imUrl": "http://x/y.jpg", "categories": [["Electronics", "Audio &amp; Video"], ["Electronics", f"Kind {i % 2}"]]}
        for i in range(ITEMS + 5)
    ]  # fmt: skip
    pack(folder / "meta_Gadgets.json.gz", literals(meta))
    return pack(folder / "reviews_Gadgets_5.json.gz", json_lines(reviews))


def amazon_2018(folder: Path) -> Path:
    """Metadata of JSON lines, with repeats, and with pieces of web pages in titles and categories."""
    reviews = [
        {"overall": float(r), "verified": True, "reviewTime": "09 13, 2009", "reviewerID": user(u), "asin": asin(i),
         "style": {"Format:": " Hardcover"}, "reviewText": "line\nbreak \\ slash", "unixReviewTime": t}
        for u, i, r, t in log()
    ]  # fmt: skip
    meta = [
        {"category": ["Books", "Art &amp; Design", "</span></span></span>"], "description": ["One.", "<p>Two.</p>"],
         "title": title(i), "also_buy": [], "asin": asin(i), "main_cat": "<img src='x.png' alt='Books'>"}
        for i in range(ITEMS)
    ]  # fmt: skip
    meta[1]["title"] = '<span id="productTitle" class="a-size-large">Gadget 1</span>'
    meta[2]["title"] = "var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();"
    pack(folder / "meta_Books.json.gz", json_lines([*meta, meta[0]]))
    return pack(folder / "Books_5.json.gz", json_lines(reviews))


def amazon_2023_rows() -> tuple[list[dict], list[dict]]:
    """Reviews, in milliseconds, and metadata by parent_asin."""
    reviews = [
        {"rating": float(r), "title": "Fine", "text": 'A "word"', "images": [], "asin": "V" + asin(i)[1:],
         "parent_asin": asin(i), "user_id": user(u), "timestamp": 1000 * t + 7, "helpful_vote": 0,
         "verified_purchase": True}
        for u, i, r, t in log()
    ]  # fmt: skip
    meta = [
        {"main_category": "All Beauty", "title": title(i), "average_rating": 4.1, "features": ["a"],
         "description": ["It's", "soft"], "price": None, "store": "S", "categories": ["Beauty", "Hair"] if i % 2 else [],
         "details": {"Brand": "B"}, "parent_asin": asin(i), "bought_together": None}
        for i in range(ITEMS)
    ]  # fmt: skip
    return reviews, meta


def amazon_2023(folder: Path) -> Path:
    """JSON lines."""
    reviews, meta = amazon_2023_rows()
    pack(folder / "meta_All_Beauty.jsonl.gz", json_lines(meta))
    return pack(folder / "All_Beauty.jsonl.gz", json_lines(reviews))


def amazon_2023_parquet(folder: Path) -> Path:
    """Parquet, in the folders of the hub."""
    reviews, meta = amazon_2023_rows()
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(meta).with_columns(price=pl.lit("None")).write_parquet(folder / "raw_meta_All_Beauty.parquet")
    pl.DataFrame(reviews).write_parquet(folder / "raw_review_All_Beauty.parquet")
    return folder


def last_out(folder: Path, *, history: bool) -> Path:
    """The benchmark's CSVs, with or without the history of each row."""
    head = "user_id,parent_asin,rating,timestamp" + (",history" if history else "")
    rows = {"train": [], "valid": [], "test": []}
    seen: dict[int, list[str]] = {}
    for u, i, r, t in log():
        past = seen.setdefault(u, [])
        split = {LENGTH - 2: "valid", LENGTH - 1: "test"}.get(len(past), "train")
        rows[split].append(f"{user(u)},{asin(i)},{float(r)},{1000 * t}" + (f",{' '.join(past)}" if history else ""))
        past.append(asin(i))
    for split, lines in rows.items():
        pack(folder / f"All_Beauty.{split}.csv.gz", "\n".join([head, *lines]) + "\n")
    return folder


def ratings_only(folder: Path, *, item_first: bool) -> Path:
    """CSV without a header: user, item, rating, time; in 2018 the item first."""
    pairs = [((asin(i), user(u)) if item_first else (user(u), asin(i)), r, t) for u, i, r, t in log()]
    return pack(folder / "Books.csv", "".join(f"{a},{b},{float(r)},{t}\n" for (a, b), r, t in pairs))


# ------------------------------------------------------------ Steam, Goodreads, MovieLens, Yelp


def day(seconds: int, form: str) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime(form)


def steam(folder: Path) -> Path:
    """Lines of Python literals with the `u` of Python 2; a game without an id, one without a title."""
    reviews = [
        {"username": user(u), "hours": 0.5 + r, "product_id": str(100 + i), "page_order": 0, "date": day(t, "%Y-%m-%d"),
         "text": "it's \u00e9pic", "early_access": False, "page": 1}
        for u, i, r, t in log()
    ]  # fmt: skip
    games = [
        {"publisher": "P", "genres": ["Action", "Indie &amp; more"], "app_name": f"Game {i}", "title": f"Game {i}",
         "release_date": "2018-01-04", "tags": ["Fun"], "price": 4.99, "specs": ["Single-player"], "id": str(100 + i)}
        for i in range(ITEMS + 3)
    ]  # fmt: skip
    del games[1]["genres"], games[2]["title"], games[ITEMS + 1]["id"]
    del games[3]["title"], games[3]["app_name"]
    games[4]["title"] = games[5]["title"] = "Twins"
    games[5]["release_date"] = "Jan 2019"

    def old(rows):
        return literals(rows).replace(" '", " u'").replace("{'", "{u'")

    pack(folder / "steam_games.json.gz", old(games))
    return pack(folder / "steam_reviews.json.gz", old(reviews))


def posted(seconds: int) -> str:
    """The day of a review as Steam shows it, which leaves out the year in which one looks (2012)."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"Posted {moment:%B} {moment.day}" + (", 2011." if moment.year == 2011 else ".")  # noqa: PLR2004


def australian(folder: Path, listed: str) -> Path:
    """A line a user, a Python literal with a list of `reviews` or of `items`; the last user has none."""
    rows = {
        u: {"user_id": f"7656{u}", "user_url": f"http://steamcommunity.com/id/7656{u}", listed: []}
        for u in range(USERS + 1)
    }
    for u, i, r, t in log():
        rows[u][listed].append(
            {"funny": "", "posted": posted(t + 260 * DAY), "last_edited": "", "item_id": str(100 + i),
             "helpful": "No ratings yet", "recommend": r > 2, "review": "it's {épic}"}
            if listed == "reviews"
            else {"item_id": str(100 + i), "item_name": f"Game {i}", "playtime_forever": 30 * r, "playtime_2weeks": 0}
        )  # fmt: skip
    name = {"reviews": "australian_user_reviews", "items": "australian_users_items"}[listed]
    return pack(folder / f"{name}.json.gz", literals(rows.values()))


def goodreads(folder: Path, *, genres: bool = False) -> Path:
    """Interactions with the dates of Goodreads, books with shelves; books 0 and 1 are editions of one work."""
    interactions = [
        {"user_id": user(u), "book_id": str(i), "review_id": "x", "is_read": True, "rating": r if i else 0,
         "review_text_incomplete": "", "date_added": day(t, "%a %b %d %H:%M:%S +0000 %Y"), "read_at": ""}
        for u, i, r, t in log()
    ]  # fmt: skip
    interactions[0]["date_added"] = day(START - 8 * 3600, "%a %b %d %H:%M:%S -0800 %Y")
    books = [
        {"isbn": "", "popular_shelves": [{"count": "99", "name": "to-read"}, {"count": "9", "name": f"kind-{i % 2}"}],
         "similar_books": [], "description": "A book.", "authors": [{"author_id": "1", "role": ""}],
         "publication_year": str(1990 + i), "book_id": str(i), "work_id": str(max(i, 1) + 500), "title": f"Book {i}",
         "title_without_series": f"Book {i}", "ratings_count": "3"}
        for i in range(ITEMS)
    ]  # fmt: skip
    pack(folder / "goodreads_books_poetry.json.gz", json_lines(books))
    if genres:
        votes = [{"book_id": str(i), "genres": {"romance": 1, "history, biography": 7}} for i in range(ITEMS)]
        pack(folder / "goodreads_book_genres_initial.json.gz", json_lines(votes))
    return pack(folder / "goodreads_interactions_poetry.json.gz", json_lines(interactions))


def movielens_100k(folder: Path) -> Path:
    """Tabs and bars, no header, latin-1, a flag for each genre."""
    pack(folder / "u.data", "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in log()))
    flags = {0: "1" + "|0" * 18, 1: "0|1|1" + "|0" * 16}
    movies = [f"{i}|Film\u00e9 {i} (1995)|01-Jan-1995||http://x|{flags[i % 2]}\n" for i in range(ITEMS)]
    pack(folder / "u.item", "".join(movies).encode("latin-1"))
    return folder


def movielens_1m(folder: Path) -> Path:
    """Two colons, no header, latin-1."""
    pack(folder / "ratings.dat", "".join(f"{u}::{i}::{r}::{t}\n" for u, i, r, t in log()))
    movies = [f'{i}::"Film\u00e9: {i}", The (1995)::Action|Comedy\n' for i in range(ITEMS)]
    pack(folder / "movies.dat", "".join(movies).encode("latin-1"))
    return folder


def movielens_32m(folder: Path) -> Path:
    """CSV with a header and quotes."""
    rows = [f"{u},{i},{r}.5,{t}" for u, i, r, t in log()]
    pack(folder / "ratings.csv", "\n".join(["userId,movieId,rating,timestamp", *rows]) + "\n")
    movies = [
        f'{i},"Film ""{i}"", The (1995)",{"(no genres listed)" if i == 1 else "Action|Comedy"}' for i in range(ITEMS)
    ]
    pack(folder / "movies.csv", "\n".join(["movieId,title,genres", *movies]) + "\n")
    return folder


def yelp(folder: Path) -> Path:
    """JSON lines; two businesses of one name in two cities."""
    reviews = [
        {"review_id": "r", "user_id": user(u), "business_id": f"b{i}", "stars": float(r), "useful": 0, "text": "ok\n",
         "date": day(t, "%Y-%m-%d %H:%M:%S")}
        for u, i, r, t in log()
    ]  # fmt: skip
    businesses = [
        {"business_id": f"b{i}", "name": "Caf\u00e9" if i < 2 else f"Place {i}", "city": f"City {i}", "state": "CA",
         "attributes": {"WiFi": "u'free'"}, "categories": None if i == 3 else "Coffee & Tea, Food", "hours": None}
        for i in range(ITEMS + 2)
    ]  # fmt: skip
    pack(folder / "yelp_academic_dataset_business.json", json_lines(businesses))
    return pack(folder / "yelp_academic_dataset_review.json", json_lines(reviews))


# ------------------------------------------------------------ files of papers' repositories


def rows_of_titles(split: str) -> list[tuple[list[str], str]]:
    """History and target of windows; titles with quotation marks and commas are among them."""
    names = ['The "Best", of', "A, B", "Who?", *(f"Song {n}" for n in range(7))]
    first = {"train": 0, "valid": 3, "test": 6}[split]
    return [([names[(first + n + k) % 10] for k in range(3)], names[(first + n + 3) % 10]) for n in range(10)]


def titles() -> list[str]:
    return sorted({title for history, target in rows_of_titles("train") for title in [*history, target]})


def instructions(folder: Path, *, quoted: bool = True) -> Path:
    """An indented array of instruction, input and output, and the catalogue."""
    for split in ("train", "valid", "test"):
        rows = [
            {
                "instruction": "Given a list, recommend a new song",
                "input": "The user has played these before: "
                + ", ".join(f'"{t}"' for t in history)
                + ", please write one",
                "output": f'"{target}"\n' if quoted else target,
            }
            for history, target in rows_of_titles(split)
        ]
        pack(folder / f"{split}.json", json.dumps(rows, indent=4))
    pack(folder / "id2name.json", json.dumps({str(n): title for n, title in enumerate(titles())}))
    pack(folder / "name2genre.json", json.dumps({title: ["pop"] for title in titles()}))
    return folder


def candidates_of(target: str) -> list[str]:
    """Four titles, the target among them."""
    place = titles().index(target)
    return [titles()[(place + step) % 10] for step in (7, 3, 0, 5)]


def s_dpo(folder: Path) -> Path:
    """LastFM of S-DPO: history with :: between the titles, candidates, selection; id::name lines."""
    for split, word in {"train": "train", "valid": "val", "test": "test"}.items():
        rows = [
            {"historyList": "::".join(history), "itemList": candidates_of(target), "trueSelection": target}
            for history, target in rows_of_titles(split)
        ]
        pack(folder / f"lastfm-{word}.json", json.dumps(rows, indent=4))
    pack(folder / "id2name.txt", "".join(f"{n}::{title}\n" for n, title in enumerate(titles())))
    return folder


def minionerec(folder: Path) -> Path:
    """CSVs by split, the info, the index; items 0 and 1 share an identifier."""
    number = {title: n for n, title in enumerate(titles())}
    sid = {title: f"<a_{max(n, 1)}><b_{n // 2}><c_7>" for title, n in number.items()}
    name = "Industrial_and_Scientific_5_2016-10-2018-11"
    for split in ("train", "valid", "test"):
        rows = [
            {
                "user_id": f"A{n}",
                "history_item_title": str(history),
                "item_title": target,
                "history_item_id": str([number[title] for title in history]),
                "item_id": number[target],
                "history_item_sid": str([sid[title] for title in history]),
                "item_sid": sid[target],
            }
            for n, (history, target) in enumerate(rows_of_titles(split))
        ]
        (folder / split).mkdir(parents=True, exist_ok=True)
        pl.DataFrame(rows).write_csv(folder / split / f"{name}.csv")
    pack(folder / "info" / f"{name}.txt", "".join(f"{sid[t]}\t{t}\t{n}\n" for t, n in number.items()))
    index = {str(n): re.findall(r"<[^>]*>", sid[title]) for title, n in number.items()}
    pack(folder / "index" / "Industrial_and_Scientific.index.json", json.dumps(index))
    told = {str(n): {"title": title, "description": f"About {n}."} for title, n in number.items()}
    pack(folder / "index" / "Industrial_and_Scientific.item.json", json.dumps(told))
    return folder


def hub_rows() -> list[dict]:
    return [
        {"user_id": user(u), "parent_asin": asin(i), "rating": float(r), "timestamp": 1000 * t, "title": title(i)}
        for u, i, r, t in log()
    ]


def per_user() -> list[dict]:
    """A row a user, with lists."""
    rows: dict[int, dict] = {}
    for u, i, r, t in log():
        row = rows.setdefault(u, {"user_id": u, "item_ids": [], "timestamps": [], "ratings": []})
        row["item_ids"].append(i)
        row["timestamps"].append(t * 10**9)
        row["ratings"].append(r)
    return list(rows.values())
