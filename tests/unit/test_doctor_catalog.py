"""The doctor on images that are followed by their names."""

from pathlib import Path

from autoscaler.config import Config
from autoscaler.core.catalog import Catalog, resolve_images
from autoscaler.core.finding import Level
from autoscaler.core.policy import Image, Policy, Size
from autoscaler.doctor.catalog import catalog_of, check_image_names
from autoscaler.store import Journal
from tests.unit.test_core_catalog import published, stored

FOLLOWING = Policy("web", Image("", "", "web"), Size(1, 2))
PINNING = Policy("shop", Image("", "", "web", 7), Size(1, 2))


def test_a_name_that_leads_nowhere_is_found_without_a_daemon(tmp_path: Path) -> None:
    config = Config(state_dir=tmp_path / "state")
    assert catalog_of(config) == Catalog()
    journal = Journal.open(config.state_dir)
    kept = journal.images.add(stored(0))
    journal.images.publish(published(kept.version)[0])
    journal.close()
    catalog = catalog_of(config)
    assert (catalog.versions, catalog.published("web")) == ((kept,), 1)
    (finding,) = check_image_names(resolve_images((FOLLOWING, PINNING), catalog))
    assert (finding.code, finding.level) == ("image.local/web", Level.ERROR)
    assert finding.found == "group shop wants image web version 7, and none is published for host local"
    assert finding.remedy == "Store it with: autoscaler image import FILE --name web --host local"
