"""The embedded default: made-up items, users and ratings, in which what users consume and what they like differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from recalign.api import Field, Params, RawData, Source, UserError, hookimpl

GENRES = {
    "Space": "Comet Orbit Nebula Rocket Saturn Galaxy Lander Eclipse",
    "Crime": "Heist Alibi Verdict Ransom Detective Motive Witness Cipher",
    "Romance": "Rose Wedding Kiss Valentine Bouquet Serenade Letter Promise",
    "Horror": "Crypt Phantom Asylum Curse Coffin Shadow Scream Vampire",
    "Western": "Saddle Canyon Sheriff Ranch Outlaw Prairie Stagecoach Mustang",
    "Comedy": "Clown Mixup Jester Prank Banana Circus Parody Giggle",
    "War": "Trench Convoy Bunker Sergeant Armistice Siege Regiment Flank",
    "Sport": "Marathon Penalty Stadium Referee Regatta Rally Paddock Sprint",
    "Nature": "Glacier Meadow Falcon Reef Savanna Otter Monsoon Cedar",
    "Music": "Tango Chorus Fiddle Encore Vinyl Ballad Drummer Sonata",
}
ADJECTIVES = (
    "Amber Silent Broken Golden Hidden Frozen Crimson Distant Lonely Velvet Hollow Restless Scarlet Faded Gentle "
    "Marble Northern Secret Wild Pale Electric Bitter Modern Ancient"
).split()
DAY = 86_400.0
BLOCK = 4_000_000
"""Cells of the users-by-items matrix that are held at once."""


class SyntheticParams(Params):
    """Sizes and probabilities of the made-up world."""

    items: int = Field(160, ge=4, description="items in the catalogue")
    genres: int = Field(6, ge=1, description="genres; each item has one")
    users: int = Field(1000, ge=1, description="users")
    events: int = Field(24, ge=2, description="items that each user consumes, none twice")
    concentration: float = Field(
        0.1, gt=0, description="Dirichlet parameter of a user's taste over genres; small: one genre"
    )
    drift: float = Field(0.03, ge=0, le=1, description="share of the taste that is drawn anew at each event")
    noise: float = Field(0.03, ge=0, le=1, description="probability that an event is a uniformly random item")
    good_share: float = Field(0.5, ge=0, le=1, description="share of items that are good")
    like_good: float = Field(0.95, ge=0, le=1, description="probability that a user likes a good item")
    like_other: float = Field(0.05, ge=0, le=1, description="probability that a user likes another item")


class Synthetic(Source):
    """Made-up data, built so that consumption and liking differ; nothing in it says how methods fare on real data.

    - Items: titles are "Noun Adjective"; the noun tells the genre. Within a genre, popularity is 1/rank.
    - Users: a taste over genres from a Dirichlet distribution, drifting. Each event draws a genre from the taste, then
      an item that the user has not consumed, by popularity; or, rarely, any item.
    - Ratings: a random half of the items is good. Good items are liked (rated 4 or 5) with probability .95, the
      others with .05 (rated 1 to 3 if not liked), by every user alike, and *independently of popularity and taste*.

    So a model that imitates what users consume (supervised fine-tuning) recommends good and bad items alike, and a
    reward that counts what users like (`--relevance "rating>=4"`) leaves room to improve on it. That room is there by
    construction.
    """

    Params = SyntheticParams
    needs_path: ClassVar[bool] = False
    suggests: ClassVar[dict[str, Any]] = {
        "task": "list",
        "history": 14,
        "targets": 10,
        "list_length": 5,
        "split": "user",
        "test_share": 0.2,
        "relevance": "rating>=4",
    }

    def files(self, path: Path) -> list[Path]:
        """Refuse the path: there is nothing to read.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"The source '{self.name}' makes its data and reads no path, but {path} is given.", "Leave it out."
        )

    def read(self, path: Path | None, seed: int) -> RawData:
        """Make the data; the same seed and parameters give the same data.

        Raises:
            UserError: users would consume more items than there are.
        """
        import polars as pl

        p = self.params
        if p.events > p.items or p.genres > p.items:
            raise UserError(
                f"items={p.items} is fewer than events={p.events} or genres={p.genres}; no item is consumed twice.",
                "Raise -p items or lower the other.",
            )
        random = np.random.default_rng([seed, 0])
        genre = np.arange(p.items) % p.genres  # [I]
        titles = _titles(genre, random)
        good = random.permutation(p.items) < round(p.good_share * p.items)  # [I]
        user, item, time = _consume(p, genre, seed)
        likes = random.random(len(item)) < np.where(good[item], p.like_good, p.like_other)  # [E]
        rating = np.where(likes, random.integers(4, 6, len(item)), random.integers(1, 4, len(item)))
        names = list(_genre_names(p.genres))
        items = pl.DataFrame(
            {
                "item_id": [f"i{index}" for index in range(p.items)],
                "title": titles,
                "genres": [[names[g]] for g in genre],
                "text": [""] * p.items,
            }
        )
        events = pl.DataFrame({"user": user, "item": item, "timestamp": time, "rating": rating.astype(np.float64)})
        events = events.sort("timestamp", maintain_order=True).select(
            user_id=pl.format("u{}", "user"), item_id=pl.format("i{}", "item"), timestamp="timestamp", rating="rating"
        )
        return RawData(items=items.lazy(), events=events.lazy())


def _genre_names(count: int) -> dict[str, list[str]]:
    """Names and nouns of `count` genres; beyond the known ones they are numbered."""
    known = list(GENRES.items())
    names = {}
    for index in range(count):
        name, nouns = known[index % len(known)]
        series = index // len(known)
        mark = str(series + 1) if series else ""
        names[name + mark] = [noun + mark for noun in nouns.split()]
    return names


def _titles(genre: np.ndarray, random: np.random.Generator) -> list[str]:
    """Return a distinct "Noun Adjective" for each item; numbered where words run out.

    A genre of n items uses about sqrt(n) nouns and as many adjectives, so that the vocabulary stays small.
    """
    titles = [""] * len(genre)
    for index, nouns in enumerate(_genre_names(int(genre.max()) + 1).values()):
        members = np.flatnonzero(genre == index)
        side = min(len(nouns), int(np.ceil(np.sqrt(len(members)))))
        for number, item in zip(random.permutation(len(members)), members, strict=True):
            again, adjective = divmod(int(number) // side, len(ADJECTIVES))
            titles[item] = f"{nouns[number % side]} {ADJECTIVES[adjective]}" + (f" {again + 1}" if again else "")
    return titles


def _consume(p: SyntheticParams, genre: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simulate all users, a block at a time: user, item, time, each [users * events]."""
    size = max(1, BLOCK // p.items)
    blocks = [
        _consume_block(p, genre, np.random.default_rng([seed, 1, first]), min(size, p.users - first))
        for first in range(0, p.users, size)
    ]
    items = np.concatenate([items for items, _ in blocks])  # [U, events]
    times = np.concatenate([times for _, times in blocks])
    return np.repeat(np.arange(p.users), p.events), items.ravel(), times.ravel()


def _consume_block(
    p: SyntheticParams, genre: np.ndarray, random: np.random.Generator, users: int
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate U users step by step: items and times, each [U, events]. Draws are Gumbel argmaxes over what is left."""
    alpha = np.full(p.genres, p.concentration)
    log_popularity = -np.log(1.0 + np.arange(p.items) // p.genres)  # [I]: 1/rank within the genre
    taste = random.dirichlet(alpha, users)  # [U, C]
    left = np.ones((users, p.items), dtype=bool)  # [U, I]
    left_in_genre = np.tile(np.bincount(genre, minlength=p.genres), (users, 1))  # [U, C]
    chosen = np.empty((users, p.events), dtype=np.int64)
    everyone = np.arange(users)
    for step in range(p.events):
        taste = (1 - p.drift) * taste + p.drift * random.dirichlet(alpha, users)
        mass = np.where(left_in_genre > 0, taste + 1e-12, 0.0)
        wanted = np.argmax(
            np.log(mass, where=mass > 0, out=np.full_like(mass, -np.inf)) + random.gumbel(size=mass.shape), 1
        )
        by_taste = np.where(genre[None] == wanted[:, None], log_popularity[None], -np.inf)  # [U, I]
        weight = np.where((random.random(users) < p.noise)[:, None], 0.0, by_taste)
        item = np.argmax(np.where(left, weight, -np.inf) + random.gumbel(size=left.shape), axis=1)  # [U]
        chosen[:, step] = item
        left[everyone, item] = False
        left_in_genre[everyone, genre[item]] -= 1
    gaps = random.exponential(DAY, (users, p.events)).round()
    start = random.uniform(0, 100 * DAY, (users, 1)).round()
    return chosen, 1_600_000_000.0 + start + np.cumsum(gaps, axis=1)


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return Synthetic
