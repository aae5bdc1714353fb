"""Whether the names of images lead anywhere."""

from collections.abc import Iterable, Iterator

from autoscaler.config import Config
from autoscaler.core.catalog import Catalog
from autoscaler.core.errors import StoreError
from autoscaler.core.finding import Finding, error
from autoscaler.core.policy import Policy
from autoscaler.store import Journal


def catalog_of(config: Config) -> Catalog:
    """Read the catalog; an empty one where there is no journal that can be read, of which more is said elsewhere."""
    try:
        journal = Journal.open_readonly(config.state_dir)
    except (StoreError, OSError):
        return Catalog()
    try:
        return journal.images.catalog()
    except StoreError:
        return Catalog()
    finally:
        journal.close()


def check_image_names(policies: Iterable[Policy]) -> Iterator[Finding]:
    """Find the policies whose image is followed by a name that leads to no volume."""
    for policy in policies:
        if not policy.image.found:
            yield error(
                f"image.{policy.host}/{policy.image.name}",
                f"group {policy.group} wants image {policy.image}, and none is published for host {policy.host}",
                f"Store it with: autoscaler image import FILE --name {policy.image.name} --host {policy.host}",
            )
