# SPDX-License-Identifier: Apache-2.0
"""The report of an adaptation: as plain values and for people."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from granulo_client.adaptation.gain import Gain, gains
from granulo_client.adaptation.plan import Adaptation

Document = Mapping[str, Any]

_IMAGES = "images"
_AGREEMENT = "label_free_agreement"
_ADVICE = {
    "better": "The adapted model is better on renders of the recipe, beyond chance.",
    "unclear": (
        "No difference beyond chance on renders of the recipe: look at the overlays before you "
        "use it, or stay with the default."
    ),
    "worse": "The adapted model is worse on renders of the recipe: stay with the default.",
}


@dataclass(frozen=True)
class Report:
    """What was found before and after."""

    asked: Adaptation
    base: str
    """Version that was trained further."""
    before: Document
    after: Document
    """Of the two studies."""
    agreement: Document
    """Evaluation of the images' labels after against those before."""
    validated: int
    """How many of the user's images were predicted after every epoch."""

    @cached_property
    def heldout(self) -> Mapping[str, Gain]:
        """On renders of the recipe that were not trained on."""
        name = next(name for name in self.before["sets"] if name != _IMAGES)
        return self._gains(name)

    @cached_property
    def truth(self) -> Mapping[str, Gain] | None:
        """On the user's images, where there are true labels."""
        return self._gains(_IMAGES) if self.asked.truth else None

    @property
    def self_agreement(self) -> dict[str, float] | None:
        """Label-free agreement of each model with itself on the validated images."""
        metrics = self.after["training_metrics"]
        if not self.validated:
            return None
        return {"before": metrics[f"base_{_AGREEMENT}"], "after": metrics[_AGREEMENT]}

    @property
    def advice(self) -> str:
        """What to do with the adapted model, by the held-out renders."""
        return _ADVICE[self.heldout["ap50"].verdict()]

    def totals(self) -> dict[str, Document]:
        """Particles and their median diameter in all of the user's images, before and after."""
        return {"before": _total(self.before), "after": _total(self.after)}

    def images(self) -> list[dict[str, Any]]:
        """The user's images with what was found before and after, page by page."""
        first, second = (found["sets"][_IMAGES][_IMAGES] for found in (self.before, self.after))
        return [
            {
                "image": a["image"],
                "page": a["page"],
                "before": _found(a),
                "after": _found(b),
                "agreement_ap50": same["metrics"]["ap50"],
            }
            for a, b, same in zip(first, second, self.agreement["images"], strict=True)
        ]

    def document(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "model": f"models/{self.asked.model}",
            "model_version": self.after["model_version"],
            "base_version": self.base,
            "recipe": self.asked.recipe,
            "datasets": self.after["datasets"],
            "training": self.after["training_metrics"],
            "heldout": _document(self.heldout),
            "truth": _document(self.truth) if self.truth else None,
            "images": self.images(),
            "images_total": {
                **self.totals(),
                "agreement_ap50": self.agreement["metrics"]["ap50"],
                "self_agreement": self.self_agreement,
            },
            "advice": self.advice,
        }

    def lines(self) -> Iterator[str]:
        """The report for people."""
        yield f"{self.after['model_version']}, trained further from {self.base}"
        yield f"renders of {self.asked.recipe}, not trained on: {_told(self.heldout)}"
        if self.truth:
            yield f"your labels: {_told(self.truth)}"
        before, after = self.totals().values()
        yield (
            f"your images: {before['particle_count']} to {after['particle_count']} particles, "
            f"median diameter {_length(before)} to {_length(after)}; the two models agree with "
            f"AP50 {self.agreement['metrics']['ap50']:.2f}"
        )
        if own := self.self_agreement:
            yield (
                f"agreement with itself, turned, relit and smaller ({self.validated} of your "
                f"images): {own['before']:.2f} to {own['after']:.2f}"
            )
        yield self.advice

    def _gains(self, name: str) -> Mapping[str, Gain]:
        first, second = (found["sets"][name]["evaluation"] for found in (self.before, self.after))
        return gains(first, second)


def _found(image: Document) -> dict[str, Any]:
    return {name: image.get(name) for name in ("particle_count", "labels", "overlay")}


def _total(study: Document) -> dict[str, Any]:
    analysis = study["sets"][_IMAGES]["analysis"]
    ecd = next((item for item in analysis["summaries"] if item["quantity"] == "ecd"), None)
    return {
        "particle_count": analysis["particle_count"],
        "median_ecd": ecd["median"] if ecd else None,
        "unit": ecd["unit"].strip("[]") if ecd else None,
    }


def _length(total: Document) -> str:
    return (
        "unknown" if total["median_ecd"] is None else f"{total['median_ecd']:.4g} {total['unit']}"
    )


def _told(found: Mapping[str, Gain]) -> str:
    return "; ".join(found[name].line() for name in ("ap50", "f1"))


def _document(found: Mapping[str, Gain]) -> dict[str, Any]:
    return {name: gain.to_dict() for name, gain in found.items()}
