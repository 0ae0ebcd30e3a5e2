# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the trainer service."""

from pydantic import Field

from granulo_core.settings import CoreSettings


class TrainerSettings(CoreSettings):
    """What the trainer may be told beyond `CoreSettings`."""

    max_epochs: int = Field(default=5000, ge=1)
    """Most epochs that a request may ask for."""
    training_cpus: float = Field(default=1024.0, gt=0)
    """Cores that a training occupies; more than there are means all of them."""
    max_annotated_images: int = Field(default=2000, ge=1)
    """Most images of one annotated dataset."""
    training_memory_mib: int = Field(default=0, ge=0)
    """Memory of the machine that trains, to refuse what cannot fit; 0 takes this machine's."""
    weights_licence: str = Field(default="GPL-3.0-or-later", min_length=1, max_length=200)
    """Licence of trained weights, an SPDX expression; stands in the model cards."""
    packaged_model: str = ""
    """SavedModel folder of the network that comes with the distribution; it is entered into the
    registry. Empty where there is none."""
    packaged_name: str = ""
    """Resource name of its version, as the segmenter knows it."""
