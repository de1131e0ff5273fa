"""Base of the explorers that run a network on a picture, which their presets follow."""

from helpers.course.explorers.stored import Stored


class Pictured(Stored):
    """A state's first part is the picture, and so is the first of `controls`.

    When it changed, each preset is drawn anew, one at a time; a preset leaves it as it is.
    """

    error_height = 2.8

    def __init__(self, name, presets, controls, *more, **options):
        self.picture = controls[0]
        self._pictured = [self.picture.value] * len(presets)  # what each preset's frame shows
        super().__init__(name, presets, controls, *more, **options)

    @staticmethod
    def _said(preset: str, sentence: str) -> str:
        return f"{preset}: {sentence}"

    def _set(self, state: tuple) -> None:
        super()._set(state._replace(picture=self.picture.value))

    def _picked(self, change) -> None:
        super()._picked(change)
        if self._following and change["new"] < len(self._presets):
            self._soon(self._follow)

    def _changed(self, change) -> None:
        if self._following:
            self._not_now(self._follow)  # the reader goes first
        super()._changed(change)

    def _after_drawing(self) -> None:
        self._soon(self._follow)

    def _follow(self) -> None:
        """Draw one preset that shows another picture than the control says; more of them later."""
        stale = [i for i, name in enumerate(self._pictured) if name != self.picture.value]
        if not stale:
            return
        number = self.preset.index if self.preset.index in stale else stale[0]
        state = list(self._presets.values())[number]._replace(picture=self.picture.value)
        try:
            self._views[number].value = self._frame(*self._picture_of(state))
        except ValueError as error:
            return self._say(str(error))
        self._pictured[number] = state.picture
        self._soon(self._follow)
