"""Write the made-up shop that `softrec demo` learns from."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.artifact import write_file

YEAR_START_S = 1_735_689_600  # 2025-01-01T00:00:00Z
DAYS = 365.0

# category -> (how one of its instalments is counted, its series, its stand-alone titles)
SHELVES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "Fantasy": (
        "Book",
        ("The Salt Road", "Crown of Thistles", "The Lantern Witch", "Dragons of Low Harbour", "The Ninth Gate of Rain",
         "Heirs of the Hollow Oak", "A Song for Grey Giants", "The Moth King", "Winterspell", "The Glass Wyrm",
         "Riders of Emberfell", "The Map of Quiet Stars"),
        ("The Last Unicorn Keeper", "Nettle and Bronze", "The Sorcerer's Tailor", "Goblin Orchard",
         "An Inn at the End of Magic", "The Borrowed Crown", "Seven Wishes for a Stone", "The Enchanted Ferryman"),
    ),
    "Crime": (
        "Case",
        ("Inspector Marlow", "The Harbour Murders", "Detective Ines Duarte", "Cold Trail", "The Blackwood Killings",
         "Sergeant Pike", "The Paris Forger", "Night Desk", "The Widow of Elm Street", "Poison Cabinet",
         "The Silent Witness Files", "Two Bullets Left"),
        ("Death of a Locksmith", "The Vanishing Banker", "A Body in the Reeds", "Alibi for Midnight",
         "The Butcher's Confession", "Who Robbed the Regatta", "Blood on the Ledger", "The Counterfeit Corpse"),
    ),
    "Science Fiction": (
        "Part",
        ("Orbit of Ash", "The Titan Relay", "Machine Heart", "Colony Zero", "Echoes from Kepler", "The Gravity Thieves",
         "Android Summer", "Starlight Protocol", "The Mars Silence", "Quantum Drifters", "Beyond the Ion Sea",
         "Warp Rebellion"),
        ("The Robot Who Dreamed", "Moonbase Lullaby", "Signal Lost at Saturn", "The Clone Hearing",
         "Ten Minutes to Andromeda", "The Cryo Passenger", "Nebula Motel", "A Spacesuit for Two"),
    ),
    "Family": (
        "Adventure",
        ("Pip the Penguin", "The Treehouse Gang", "Captain Pancake", "Molly and the Mammoth", "Grandpa's Flying Bus",
         "The Puppy Parade", "Tiny Town Heroes", "Hedgehog Holiday", "The Bubblegum Pirates", "Otto the Otter",
         "Princess Mudpie", "The Cardboard Castle"),
        ("The Great Sandwich Race", "A Kitten Called Monday", "My Teacher Is a Walrus", "Snow Day Forever",
         "The Backyard Circus", "Where Did the Socks Go", "The Biggest Birthday Balloon", "Duckling Detective School"),
    ),
    "Strategy Games": (
        "Edition",
        ("Empires of Clay", "Hex Commander", "Merchant Republics", "Siege of Valmora", "Railway Barons",
         "Tactics Royale", "Island Settlers Online", "Fleet Admiral", "Trade Winds", "Castle Architect",
         "Battalion Chess", "Dynasty Builder"),
        ("Pocket Generals", "The Beekeeper's Economy", "Fortress Puzzle", "Turn Based Tuesday", "Conquest of Nowhere",
         "Mayor for a Day", "Supply Line Solitaire", "Diplomacy at Dawn"),
    ),
    "Television Drama": (
        "Season",
        ("Saint Agnes Hospital", "The Vineyard", "Chambers and Daughters", "Upper Ward", "The Embassy", "Harrow County",
         "Second Marriage", "The Newsroom at Nine", "Blue Light District", "The Governor's Kitchen", "Lakeside High",
         "Parliament Hill"),
        ("The Divorce Lawyer", "Three Sisters in Leeds", "The Long Inheritance", "A Surgeon's Year",
         "Letters to Vienna", "The Strike of Eighty Four", "Neighbours on the Fourth Floor", "The Adoption"),
    ),
    "Folk Music": (
        "Volume",
        ("Ballads from the Fen", "Fiddle and Fog", "The Shepherd Sessions", "Songs of the Weavers", "Accordion Nights",
         "Highland Airs", "Hearthside Harmonies", "The Banjo Almanac", "River Shanties", "Dulcimer Dances",
         "Mountain Hymns", "The Wandering Choir"),
        ("Barley Moon Live", "The Miller's Waltz", "Acoustic at the Abbey", "Whistle Down the Lane",
         "Old Strings New Tunes", "Harvest Reel", "The Unplugged Minstrel", "Lullabies from Orkney"),
    ),
    "Cooking": (
        "Menu",
        ("The Sunday Baker", "Street Food Atlas", "Noodles at Home", "The Pickle Workshop", "Feast of Spices",
         "One Pot Weeknights", "The Vegetable Garden Table", "Sourdough School", "Grill Masters",
         "Soups for Every Month", "The Chocolate Laboratory", "Tapas and Friends"),
        ("A Pinch of Saffron", "The Lazy Breakfast", "Dumplings with Nana", "Knife Skills for Beginners",
         "Cheese and How to Age It", "Desserts without Sugar", "The Camping Stove Gourmet", "Butter a Love Story"),
    ),
}  # fmt: skip

CONTINUES = 0.62  # how often somebody who has an instalment waiting takes it
STAYS = 0.55  # how often the next choice keeps to the category of the last one
STRAYS = 0.06  # how often the next item is anything at all
FRESH_DAYS = 45.0  # a release has lost most of its novelty after this many days


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the shop sells: parallel arrays, one entry per item.

    Attributes:
        titles: all distinct but one, which is sold in two editions: the first and the last item.
        category: position in SHELVES, int [items].
        series: which series, int [items]; a stand-alone title is a series of its own.
        volume: counted from 1, int [items].
        released_day: day of the year, float [items]; negative: out before it began.
        appeal: how well it is liked, float [items]; median 1.
    """

    titles: tuple[str, ...]
    category: NDArray[np.int64]
    series: NDArray[np.int64]
    volume: NDArray[np.int64]
    released_day: NDArray[np.float64]
    appeal: NDArray[np.float64]


def write_demo_shop(folder: Path, *, seed: int = 7, users: int = 1000) -> None:
    """Write items.csv and interactions.csv of a small, plausible, made-up shop.

    The story. The shop sells books, films, games, records and cookbooks in eight categories. Most titles belong to a
    series and come out in order: "The Salt Road, Book 1", then "Book 2". Two fifths of the shelf is released during the
    year, the rest was there before. A customer likes two or three categories, and by December not quite the ones
    of January. Who has begun a series usually takes its next instalment as soon as it is out; otherwise they tend to
    stay in the category that they are in, or follow their taste to another, and begin something there, preferring what
    is new and what is well liked. Now and then they buy something for somebody else. One title is sold in two editions
    (two items, one title), as real catalogs do.

    So the next item follows from category, series and recency, in words that a language model can read off the titles,
    while no title is popular enough for a popularity list to do well.

    Args:
        folder: created if absent; its items.csv (item_id, title, category) and interactions.csv (user_id, item_id,
            timestamp in unix seconds, rating 1..5; ordered by time) are overwritten.
        seed: fixes every choice; the same seed writes the same bytes.
        users: customers, each with 6 to 30 interactions; user ids are "1".."users".
    """
    random = np.random.default_rng(seed)
    shelf = fill_shelf(random)
    rows = [row for user in range(1, users + 1) for row in make_purchases(str(user), shelf, random)]
    rows.sort(key=lambda row: (row[2], row[0]))
    categories = tuple(SHELVES)
    item_rows = [(_item_id(row), title, categories[shelf.category[row]]) for row, title in enumerate(shelf.titles)]
    _write_csv(folder / "items.csv", ("item_id", "title", "category"), item_rows)
    _write_csv(folder / "interactions.csv", ("user_id", "item_id", "timestamp", "rating"), rows)


def fill_shelf(random: np.random.Generator) -> Shelf:
    """Every series with 3 to 5 instalments in order of release, and the stand-alone titles."""
    entries: list[tuple[str, int, int, int, float, float]] = []
    series = 0
    for category, (counted_as, series_names, lone_titles) in enumerate(SHELVES.values()):
        for name in series_names:
            appeal, released_day = random.lognormal(0.0, 0.5), random.uniform(-500.0, 200.0)
            for volume in range(1, int(random.integers(3, 6)) + 1):
                entries.append((f"{name}, {counted_as} {volume}", category, series, volume, released_day, appeal))
                released_day += random.uniform(30.0, 110.0)
            series += 1
        for title in lone_titles:
            appeal, released_day = random.lognormal(0.0, 0.5), random.uniform(-400.0, 350.0)
            entries.append((title, category, series, 1, released_day, appeal))
            series += 1
    title, category, first_series, volume, released_day, appeal = entries[0]
    entries.append((title, category, first_series, volume, released_day + 60.0, appeal))  # the illustrated edition
    titles, *columns = zip(*entries, strict=True)
    whole, real = [np.array(column) for column in columns[:3]], [np.array(column) for column in columns[3:]]
    return Shelf(tuple(titles), *whole, *real)


def make_purchases(user_id: str, shelf: Shelf, random: np.random.Generator) -> list[tuple[str, str, int, int]]:
    """One customer's year: (user_id, item_id, timestamp in s, rating), oldest first, no title twice."""
    count = int(random.integers(6, 31))
    days = np.sort(random.uniform(random.uniform(0.0, DAYS * 0.6), DAYS, size=count))
    seconds = YEAR_START_S + np.floor(days * 86_400).astype(np.int64) + np.arange(count)  # strictly ascending
    january, december = random.dirichlet(np.full(len(SHELVES), 0.3), size=2)
    bought: list[int] = []
    rows = []
    for day, second in zip(days, seconds, strict=True):
        drift = 0.5 * day / DAYS
        chances = next_item_chances(bought, shelf, float(day), (1.0 - drift) * january + drift * december)
        row = int(random.choice(len(chances), p=chances))
        in_the_mood = bool(bought) and shelf.category[row] == shelf.category[bought[-1]]
        rating = int(np.clip(np.rint(random.normal(4.2 if in_the_mood else 3.6, 0.8)), 1, 5))
        bought.append(row)
        rows.append((user_id, _item_id(row), int(second), rating))
    return rows


def next_item_chances(bought: list[int], shelf: Shelf, day: float, taste: NDArray[np.float64]) -> NDArray[np.float64]:
    """The story as numbers: the probability of each item to be the next one.

    Args:
        bought: the customer's items as positions on the shelf, oldest first.
        shelf: what there is.
        day: of the year, now; nothing released later has any chance.
        taste: a probability per category, [categories].

    Returns:
        Probabilities that add up to 1, [items].
    """
    reached = np.zeros(shelf.series.max() + 1, dtype=np.int64)  # last instalment bought, per series
    touched = np.full(len(reached), -np.inf)  # how many purchases ago, negated, per series
    for ago, row in zip(range(len(bought), 0, -1), bought, strict=True):
        reached[shelf.series[row]] = max(reached[shelf.series[row]], shelf.volume[row])
        touched[shelf.series[row]] = -ago
    owned = np.isin(shelf.series * 10 + shelf.volume, [shelf.series[row] * 10 + shelf.volume[row] for row in bought])
    on_sale = (shelf.released_day <= day) & ~owned
    is_next = on_sale & (shelf.volume == reached[shelf.series] + 1)
    is_begun = reached[shelf.series] > 0

    category_chances = (taste + 1e-3) / (taste + 1e-3).sum()
    if bought:
        category_chances = (1.0 - STAYS) * category_chances
        category_chances[shelf.category[bought[-1]]] += STAYS
    novelty = np.exp(-np.maximum(day - shelf.released_day, 0.0) / FRESH_DAYS)
    begins = np.where(is_next & ~is_begun, shelf.appeal * (0.3 + 2.0 * novelty), 0.0)
    totals = np.bincount(shelf.category, weights=begins, minlength=len(category_chances))
    begins *= (category_chances / np.where(totals > 0, totals, 1.0))[shelf.category]
    # of several series begun, the one touched last is the most likely to be finished
    continues = np.where(is_next & is_begun, np.exp(touched[shelf.series]), 0.0)

    chances: NDArray[np.float64] = np.zeros(len(shelf.titles))
    parts = ((STRAYS, on_sale.astype(np.float64)), (1.0 - STRAYS - CONTINUES, begins), (CONTINUES, continues))
    for weight, part in parts:
        if part.sum() > 0:
            chances += weight * part / part.sum()
    chances /= chances.sum()
    return chances


def _item_id(row: int) -> str:
    return f"i{row + 1:03d}"


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str | int, ...]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_file(path, text.getvalue().encode())
