"""Reads what cloud-init would find in a seed."""

from io import BytesIO

from pycdlib import PyCdlib


def read_seed(content: bytes) -> tuple[str, dict[str, str]]:
    """The volume's label, and its files."""
    volume = PyCdlib()
    volume.open_fp(BytesIO(content))
    label = volume.pvd.volume_identifier.decode().strip()
    files = {}
    for child in volume.list_children(rr_path="/"):
        if child.is_file():
            held = BytesIO()
            name = child.rock_ridge.name().decode()
            volume.get_file_from_iso_fp(held, rr_path=f"/{name}")
            files[name] = held.getvalue().decode()
    volume.close()
    return label, files
