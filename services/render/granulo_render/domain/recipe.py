# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipe: a declarative scene whose every number is a value or a distribution."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from types import MappingProxyType

from granulo_core.imaging.look import Look

RECIPE_VERSION = 1
"""Newest recipe format that this renderer understands."""
DEFAULT_SIZE_PX = 512


@dataclass(frozen=True)
class Value:
    """Always the same number."""

    value: float


@dataclass(frozen=True)
class Uniform:
    """Evenly spread between two numbers."""

    low: float
    high: float


@dataclass(frozen=True)
class Normal:
    """Bell curve, cut off at three standard deviations."""

    mean: float
    stddev: float


@dataclass(frozen=True)
class LogNormal:
    """Bell curve of the logarithm, cut off at three standard deviations.

    Its mode is ``median * exp(-sigma ** 2)``.
    """

    median: float
    sigma: float
    """Standard deviation of the natural logarithm: ln(GSD)."""


@dataclass(frozen=True)
class Choice:
    """One of several numbers, all equally likely."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class Empirical:
    """Measured values: any number between the smallest and the largest, distributed like them."""

    samples: tuple[float, ...]


@dataclass(frozen=True)
class Component:
    """One part of a mixture."""

    weight: float
    distribution: "Distribution"


@dataclass(frozen=True)
class Mixture:
    """One of several distributions, by weight."""

    components: tuple[Component, ...]


Distribution = Value | Uniform | Normal | LogNormal | Choice | Empirical | Mixture


@dataclass(frozen=True)
class Sphere:
    """Regular sphere."""

    roughness: Distribution = Value(0.0)
    """Height of the surface texture relative to the radius, drawn per template."""


@dataclass(frozen=True)
class Ellipsoid:
    """Ellipsoid of revolution."""

    aspect_ratio: Distribution = Value(1.5)
    """Length along the axis over width, drawn per particle; below 1 is a lens."""


class Family(Enum):
    """What the templates of a polyhedron are made of."""

    HALF_SPACES = "half_spaces"
    """A rounded intersection of random half-spaces."""
    RANDOM_HULL = "random_hull"
    """The convex hull of random points."""
    CUBE = "cube"
    OCTAHEDRON = "octahedron"
    TRUNCATED_OCTAHEDRON = "truncated_octahedron"
    DODECAHEDRON = "dodecahedron"
    BIPYRAMID = "bipyramid"
    HEXAGONAL_PRISM = "hexagonal_prism"


@dataclass(frozen=True)
class Polyhedron:
    """Faceted or rounded particle."""

    templates: int = 4
    """Number of different template objects per scene (M2)."""
    faces: Distribution = Uniform(9.0, 20.0)
    """Half-spaces, or points of a random hull, drawn per template; regular solids ignore it."""
    sharpness: Distribution = Choice((4.0, 5.0, 6.0, 8.0, 12.0))
    """Half-spaces: p of the p-norm; 4 is well rounded, 12 nearly sharp."""
    aspect_ratio: Distribution = LogNormal(1.28, 0.2)
    """Stretching of the long axis, drawn per template."""
    roughness: Distribution = Uniform(0.0, 0.05)
    """Height of the surface texture relative to the radius, drawn per template."""
    families: tuple[Family, ...] = (Family.HALF_SPACES,)
    """The templates take these in turn."""
    bevel: Distribution = Uniform(0.05, 0.2)
    """Hulls and regular solids: rounding of the edges relative to the radius."""


@dataclass(frozen=True)
class Rod:
    """Straight cylinder with round ends."""

    aspect_ratio: Distribution = LogNormal(4.0, 0.3)
    """Whole length over thickness, drawn per particle."""
    end_rounding: Distribution = Value(1.0)
    """1: the ends are hemispheres; towards 0 they are flat."""


@dataclass(frozen=True)
class Wire:
    """Long, bent cylinder."""

    length_nm: Distribution
    """Length along the wire, drawn per particle; it may reach far beyond the image."""
    bending_deg_per_um: Distribution = Uniform(0.0, 30.0)
    """Standard deviation of the change of direction per micrometre, drawn per particle."""


@dataclass(frozen=True)
class Platelet:
    """Flat polygon with parallel faces."""

    thickness_ratio: Distribution = Uniform(0.1, 0.3)
    """Thickness over the face's diameter, drawn per particle."""
    corners: Distribution = Choice((3.0, 6.0, 6.0, 12.0))
    """Corners of the outline, drawn per template; 12 is nearly round."""
    bevel: Distribution = Uniform(0.1, 0.5)
    """Rounding of the edges relative to half of the thickness, drawn per template."""


class Format(Enum):
    """File format of a mesh."""

    OBJ = "obj"
    STL = "stl"
    PLY = "ply"


@dataclass(frozen=True)
class UserMesh:
    """The user's own closed triangle mesh."""

    file: str
    """Uploaded file, ``uploads/<sha256>``."""
    format: Format | None = None
    """What the file is; in a recipe file its name tells."""


Shape = Sphere | Ellipsoid | Polyhedron | Rod | Wire | Platelet | UserMesh

SHAPES: Mapping[str, type[Shape]] = MappingProxyType(
    {
        "sphere": Sphere,
        "ellipsoid": Ellipsoid,
        "polyhedron": Polyhedron,
        "rod": Rod,
        "wire": Wire,
        "platelet": Platelet,
        "mesh": UserMesh,
    }
)
"""Shapes by the name of their field in a particle class."""


def shape_name(shape: Shape) -> str:
    """Name of a shape's field in a particle class, e.g. ``"sphere"``."""
    return next(name for name, kind in SHAPES.items() if kind is type(shape))


@dataclass(frozen=True)
class Core:
    """The inner part of a core-shell particle: the particle's shape at a smaller size."""

    diameter_ratio: Distribution
    """Diameter of the core relative to the particle's, drawn per particle."""
    brightness: Distribution
    """Brightness of the core's material relative to the shell's, drawn per particle."""


@dataclass(frozen=True)
class ParticleClass:
    """One kind of particle."""

    shape: Shape
    diameter_nm: Distribution
    """Diameter of the sphere of equal volume, drawn per particle; of a rod and a wire the
    thickness, of a platelet the diameter of the circle of its face's area."""
    weight: float = 1.0
    """Share by number relative to the other classes, on average over the scenes."""
    label: str = ""
    """Name for people, and category in exports."""
    brightness: Distribution = Value(1.0)
    """Material contrast: brightness relative to that of other classes, drawn per particle."""
    core: Core | None = None
    """A core of another material inside of the particle."""


class Pattern(Enum):
    """How the particles of a scene lie."""

    RANDOM = "random"
    AGGLOMERATES = "agglomerates"
    CHAINS = "chains"
    ROWS = "rows"
    RAFTS = "rafts"
    SHEETS = "sheets"


@dataclass(frozen=True)
class Patterns:
    """Share of the scenes by pattern, as relative weights; all 0 means agglomerates."""

    random: float = 0.0
    """Every particle on its own place."""
    agglomerates: float = 0.0
    """Touching clusters of cluster_size particles, grown particle by particle."""
    chains: float = 0.0
    """Strings of cluster_size particles, each touching the one before."""
    rows: float = 0.0
    """Straight or bent rows side by side."""
    rafts: float = 0.0
    """Close-packed hexagonal rafts with vacancies."""
    sheets: float = 0.0
    """Dense, disordered sheets one particle thick that cover large parts of the substrate."""


@dataclass(frozen=True)
class Arrangement:
    """Where the particles of a scene lie.

    At most one of density_per_um2, count and coverage says how many there are; without any there
    are 20 per square micrometre.
    """

    density_per_um2: Distribution | None = None
    """Particles aimed at per square micrometre of the field of view, drawn per scene."""
    cluster_size: Distribution = LogNormal(4.0, 0.8)
    """Particles per cluster or chain, drawn for each; 1 places a particle on its own."""
    stacking: Distribution = Value(0.2)
    """Chance that a clustered particle climbs on its neighbour, drawn per scene."""
    count: Distribution | None = None
    """Particles aimed at in the field of view, drawn per scene."""
    coverage: Distribution | None = None
    """Share of the field of view to cover with particles, drawn per scene."""
    patterns: Patterns = Patterns()
    """Share of the scenes by pattern."""
    overlap: Distribution = Value(0.02)
    """Depth to which neighbours may be sintered into each other, relative to the radius, drawn
    per scene."""
    lying: Distribution = Value(0.75)
    """Chance that a long or flat particle lies flat on the substrate, drawn per scene."""


DEFAULT_DENSITY = Value(20.0)


class Shading(Enum):
    """How the particles' signal is made."""

    LAYERS = "layers"
    """By the appearance model, from the geometry layers: new looks cost no rendering."""
    CYCLES = "cycles"
    """By Cycles, for what layers cannot carry: rims that shine through from below."""


class Modality(Enum):
    """Kind of microscope and detector: where parameters come from that a recipe leaves out."""

    ANY = "any"
    SEM_IN_LENS = "sem_in_lens"
    """Detector inside the lens: even light, bright rims."""
    SEM_SIDE_DETECTOR = "sem_side_detector"
    """Everhart-Thornley detector at the side: light from one side, shadows."""
    HIM = "him"
    """Helium ion microscope: sharp, great depth of focus, strong rims."""
    TEM = "tem"
    """Transmission: dark particles on a bright ground."""


@dataclass(frozen=True)
class Imaging:
    """Sampling of the delivered image; exactly one of pixel_size_nm and field_of_view_nm."""

    pixel_size_nm: Distribution | None = None
    """Side of a pixel of the delivered image, drawn per scene."""
    size_px: int = DEFAULT_SIZE_PX
    """Side of the delivered square image and labels."""
    upsampling: Distribution = Value(1.0)
    """M9: the image is drawn at 1/upsampling of the delivered size and upsampled bilinearly; 1
    to 4, whole, drawn per scene."""
    field_of_view_nm: Distribution | None = None
    """Side of the field of view, drawn per scene."""
    tilt_deg: Distribution = Value(0.0)
    """Tilt of the specimen about the image's horizontal axis, drawn per scene."""
    shading: Shading = Shading.LAYERS
    """How the particles' signal is made."""
    transparency: Distribution = Value(0.0)
    """Cycles shading only: share of the signal of what lies below that shines through a
    particle, drawn per scene."""


@dataclass(frozen=True)
class Recipe:
    """A renderer's whole input besides seed and index."""

    classes: tuple[ParticleClass, ...]
    """Kinds of particles."""
    imaging: Imaging
    """Sampling of the delivered image."""
    arrangement: Arrangement = Arrangement()
    """Where the particles lie."""
    appearance: Mapping[str, Distribution] = field(default_factory=lambda: MappingProxyType({}))
    """Look of the micrograph by parameter name; the modality draws those left out."""
    modality: Modality = Modality.ANY
    """Kind of microscope and detector."""
    label: str = ""
    """Name for people."""
    version: int = RECIPE_VERSION
    """Version of this format."""


APPEARANCE: Mapping[str, tuple[float, float, str]] = MappingProxyType(
    {
        item.name: (item.metadata["low"], item.metadata["high"], item.metadata["doc"])
        for item in fields(Look)
        if item.name != "upsampling"  # imaging.upsampling sets it
    }
)
"""Smallest and largest value and meaning of each appearance parameter."""
