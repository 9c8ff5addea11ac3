"""Small files, and what the reading layer makes of them."""

from recalign.sources.reading import open_table, typed

ROWS = ("user", "time", "stars")


def write(folder, text, name="x.csv"):
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def records(table):
    """Rows of all columns, their numbers, and how many records were refused by reason."""
    rows, numbers, refused = [], [], {}
    for batch in table.batches(list(table.schema)):
        rows += batch.frame.rows()
        numbers += batch.number.tolist()
        for each in batch.refused:
            refused[each.reason.text] = refused.get(each.reason.text, 0) + each.count
    return rows, numbers, refused


def read(file, columns, **options):
    """Typed rows, and the account of the file."""
    done = typed(open_table(file, **options), columns)
    return done.frame.collect(), done.account


def first_refusal(account):
    return next(iter(account.refused.values())).first[0]
