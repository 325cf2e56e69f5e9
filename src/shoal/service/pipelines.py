"""``pipelines`` of the service file: a detector, and models that look closer at what it finds.

What the file alone can tell of them is checked here; tasks and labels, which the models have, where they are known
(``shoal.pipeline.check``). A fault's text begins with its key, so that it can be told with its line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

from pydantic import ConfigDict, Field

from shoal.service.section import Name, Section

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEEPEST: Final = 3
"""Steps, one behind the other."""
MOST_CALLS: Final = 1000
"""Of models, for one picture."""
MAX_BOXES: Final = 20
"""Of a detector that doesn't say."""

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=255)]
"""As the model store has it."""
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Padding = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Label = Annotated[str, Field(min_length=1)]


class Detector(Section):
    """The first step, which looks at the whole picture."""

    model: ModelName
    """A model for detection."""
    name: Name | None = None
    """What answers call this step. None: the model's name."""
    score_threshold: Score | None = None
    """Boxes below it are left out. None: the model's own."""
    classes: list[Label] = Field(default_factory=list)
    """Labels of the boxes to keep. Empty: all."""
    max_boxes: int = Field(default=MAX_BOXES, ge=1, le=100)
    """The most boxes that are kept: those with the highest scores."""
    padding: Padding = 0.0
    """What the next steps see around a box on each side, as a share of its width and height, within the picture."""
    square: bool = False
    """Whether the next steps see a square around the box: its shorter side grows."""


class Step(Section):
    """A model that looks at each box of the step before."""

    model: ModelName
    """A model for classification, detection or segmentation."""
    name: Name | None = None
    """What answers call this step. None: the model's name."""
    labels: list[Label] = Field(default_factory=list, alias="for")
    """Of the boxes that it looks at. Empty: all."""
    top_k: int | None = Field(default=None, ge=1, le=1000)
    """Classification: how many classes to answer. None: 5."""
    score_threshold: Score | None = None
    """Detection: boxes below it are left out. Segmentation with one class: pixels below it are background. None: the
    model's own."""
    classes: list[Label] = Field(default_factory=list)
    """Detection: labels of the boxes to keep. Empty: all."""
    max_boxes: int | None = Field(default=None, ge=1, le=100)
    """Detection: the most boxes that are kept in each box before. None: 20."""
    padding: Padding | None = None
    """Detection: as the first step's. None: 0."""
    square: bool | None = None
    """Detection: as the first step's. None: false."""
    then: list[Step] = Field(default_factory=list)
    """Models that look at each box that this one finds."""

    model_config = ConfigDict(serialize_by_alias=True)

    @property
    def detects(self) -> bool:
        """Whether it has settings that only a detector has."""
        told = (self.max_boxes, self.padding, self.square)
        return bool(self.classes or self.then) or any(each is not None for each in told)


class Pipeline(Section):
    """A detector and the steps behind it, served under a name as a model is."""

    detect: Detector
    then: list[Step] = Field(min_length=1)
    """Models that look at each box."""
    replicas: int = Field(default=1, ge=1, le=1000)
    """Number of processes that run it. Each makes calls of models and waits for them; it needs no GPU."""
    max_pictures: int = Field(default=64, ge=1, le=65_536)
    """Pictures in each process at a time. More wait in the batcher, which refuses those that can't be answered in time:
    pictures a second, times the seconds that one takes, are enough."""


class Fault(NamedTuple):
    """What is wrong with one key."""

    key: str
    """From the top of the file, such as ``pipelines.birds.then.0.model``."""
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"


class Placed(NamedTuple):
    """A step and where it stands."""

    key: str
    depth: int
    """1: the first."""
    step: Detector | Step
    before: Placed | None
    """Whose boxes it looks at."""

    @property
    def name(self) -> str:
        """What answers call it."""
        return self.step.name or self.step.model

    @property
    def most_calls(self) -> int:
        """Of its model, for one picture."""
        return 1 if self.before is None else self.before.most_calls * (self.before.step.max_boxes or MAX_BOXES)


def placed(name: str, pipeline: Pipeline) -> list[Placed]:
    """Every step, each before those behind it, in the order of the file."""
    first = Placed(f"pipelines.{name}.detect", 1, pipeline.detect, None)
    return [first, *_behind(f"pipelines.{name}.then", pipeline.then, first)]


def _behind(key: str, steps: Iterable[Step], before: Placed) -> Iterator[Placed]:
    for index, step in enumerate(steps):
        found = Placed(f"{key}.{index}", before.depth + 1, step, before)
        yield found
        yield from _behind(f"{found.key}.then", step.then, found)


def faults(name: str, pipeline: Pipeline, pipelines: Iterable[str]) -> Iterator[Fault]:
    """What the file alone tells; ``pipelines``: the names of all."""
    steps = placed(name, pipeline)
    seen: dict[str, str] = {}
    for each in steps:
        yield from _faults(each, frozenset(pipelines))
        if (other := seen.setdefault(each.name, each.key)) != each.key:
            yield Fault(each.key, f"{other} is called {each.name!r}, too; give one of them a name of its own (name:)")
    if (calls := sum(each.most_calls for each in steps)) > MOST_CALLS:
        text = f"one picture may lead to {calls:,} calls, and {MOST_CALLS:,} is the most: lower max_boxes"
        yield Fault(f"pipelines.{name}", text)


def _faults(placed: Placed, pipelines: frozenset[str]) -> Iterator[Fault]:
    key, step = placed.key, placed.step
    if placed.depth > DEEPEST:
        yield Fault(key, f"is step {placed.depth} in a row, and {DEEPEST} is the most")
    if step.model in pipelines:
        yield Fault(f"{key}.model", f"{step.model!r} is a pipeline, and a step is a model; write its steps here")
    if isinstance(step, Step):
        yield from _faults_behind(key, step, placed.before)


def _faults_behind(key: str, step: Step, before: Placed | None) -> Iterator[Fault]:
    if step.top_k is not None and step.detects:
        yield Fault(f"{key}.top_k", "goes with classification, and this step has settings of a detector")
    kept = before.step.classes if before else []
    if kept and (never := [label for label in step.labels if label not in kept]):
        text = f"{', '.join(map(repr, never))}: the step before keeps the classes {', '.join(map(repr, kept))} alone"
        yield Fault(f"{key}.for", text)
