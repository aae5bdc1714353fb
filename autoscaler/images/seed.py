"""The volume that cloud-init's NoCloud data source reads: ISO 9660, known by its label."""

from collections.abc import Mapping
from io import BytesIO

from pycdlib import PyCdlib

LABEL = "cidata"


def make_seed(files: Mapping[str, str]) -> bytes:
    """Make a volume of these files, by their names."""
    volume = PyCdlib()
    volume.new(interchange_level=3, vol_ident=LABEL, rock_ridge="1.09", joliet=3)
    for name, text in files.items():
        content = text.encode()
        plain = name.upper().replace("-", "_")
        volume.add_fp(BytesIO(content), len(content), f"/{plain}.;1", rr_name=name, joliet_path=f"/{name}")
    made = BytesIO()
    volume.write_fp(made)
    volume.close()
    return made.getvalue()
