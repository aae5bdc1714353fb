"""The catalog's tables in the journal, and what was read of the content of golden images."""

from collections.abc import Mapping
from dataclasses import replace

from autoscaler.core.catalog import Catalog, ImageVersion, Publication
from autoscaler.store.database import Database

_STAMPS_KEPT = 64
"""How many states of one volume are remembered."""
_COLUMNS = (
    "name", "version", "host", "pool", "volume", "digest", "file_bytes", "disk_bytes", "source", "at", '"by"',
)  # fmt: skip


class ImageTables:
    """Reads and writes them. Every method may be called from any thread; StoreError when it cannot do its work."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def catalog(self) -> Catalog:
        """Read all of it."""
        with self._database.reading("read the catalog of images") as connection:
            stored = connection.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM images ORDER BY name, version, host"  # noqa: S608 - constants
            ).fetchall()
            published = connection.execute(
                'SELECT name, version, at, "by" FROM publications WHERE withdrawn_at IS NULL ORDER BY id'
            ).fetchall()
        return Catalog(tuple(ImageVersion(*row) for row in stored), tuple(Publication(*row) for row in published))

    def add(self, stored: ImageVersion) -> ImageVersion:
        """Keep a version, out of the ledger and into the catalog at once; gives it with its number.

        The number is one of its name that has this content already, on another host, else the next.
        """
        with self._database.writing("write the catalog of images") as connection:
            connection.execute("INSERT INTO image_names VALUES (?, 0) ON CONFLICT DO NOTHING", (stored.name,))
            known = connection.execute(
                "SELECT version FROM images WHERE name = ? AND digest = ?", (stored.name, stored.digest)
            ).fetchone()
            if known is None:
                known = connection.execute(
                    "UPDATE image_names SET versions = versions + 1 WHERE name = ? RETURNING versions", (stored.name,)
                ).fetchone()
            added = replace(stored, version=int(known[0]))
            values = [getattr(added, column.strip('"')) for column in _COLUMNS]
            places = ", ".join("?" for _ in values)
            connection.execute(f"INSERT INTO images ({', '.join(_COLUMNS)}) VALUES ({places})", values)  # noqa: S608 - constants
            connection.execute(
                "DELETE FROM volumes WHERE host = ? AND pool = ? AND name = ?",
                (stored.host, stored.pool, stored.volume),
            )
        return added

    def remove(self, stored: ImageVersion, owner: str, at: float) -> None:
        """Take a version on one host out of the catalog; until its volume is gone the ledger has it, as `owner`'s.

        Its publications go with the last host that had it.
        """
        with self._database.writing("write the catalog of images") as connection:
            connection.execute(
                "DELETE FROM images WHERE name = ? AND version = ? AND host = ?",
                (stored.name, stored.version, stored.host),
            )
            connection.execute(
                "INSERT INTO volumes (host, pool, name, instance, at) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (host, pool, name) DO UPDATE SET instance = excluded.instance, at = excluded.at",
                (stored.host, stored.pool, stored.volume, owner, at),
            )
            connection.execute(
                "UPDATE publications SET withdrawn_at = ?3 WHERE name = ?1 AND version = ?2 AND withdrawn_at IS NULL "
                "AND NOT EXISTS (SELECT 1 FROM images WHERE name = ?1 AND version = ?2)",
                (stored.name, stored.version, at),
            )

    def publish(self, publication: Publication) -> None:
        """Note that a version is followed from now on."""
        with self._database.writing("publish an image") as connection:
            connection.execute(
                'INSERT INTO publications (name, version, at, "by") VALUES (?, ?, ?, ?)',
                (publication.name, publication.version, publication.at, publication.by),
            )

    def withdraw(self, name: str, at: float) -> None:
        """Take the last publication of a name back."""
        with self._database.writing("roll an image back") as connection:
            connection.execute(
                "UPDATE publications SET withdrawn_at = ? WHERE id = "
                "(SELECT max(id) FROM publications WHERE name = ? AND withdrawn_at IS NULL)",
                (at, name),
            )

    # What was read of contents.

    def contents(self, host: str, pool: str, volume: str) -> Mapping[str, str]:
        """Give the digest of a volume's content, by the stamps it had when that was read."""
        with self._database.reading("read what images hold") as connection:
            rows = connection.execute(
                "SELECT stamp, digest FROM contents WHERE host = ? AND pool = ? AND volume = ?", (host, pool, volume)
            ).fetchall()
        return dict(rows)

    def note_content(self, host: str, pool: str, volume: str, stamp: str, digest: str) -> None:
        """Keep what was read of a volume's content, and forget what is long past."""
        with self._database.writing("note what an image holds") as connection:
            connection.execute(
                "INSERT INTO contents (host, pool, volume, stamp, digest) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (host, pool, volume, stamp) DO UPDATE SET digest = excluded.digest",
                (host, pool, volume, stamp, digest),
            )
            connection.execute(
                "DELETE FROM contents WHERE host = ?1 AND pool = ?2 AND volume = ?3 AND id NOT IN "
                "(SELECT id FROM contents WHERE host = ?1 AND pool = ?2 AND volume = ?3 ORDER BY id DESC LIMIT ?4)",
                (host, pool, volume, _STAMPS_KEPT),
            )
