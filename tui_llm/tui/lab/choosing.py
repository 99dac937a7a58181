"""Opens another model: one from the list of models, or one that a run or a form requests."""

from __future__ import annotations

from textual import on

from tui_llm.tui.kit.live import deliver
from tui_llm.tui.lab.following import Following
from tui_llm.tui.state.messages import ModelChosen, ModelsListed


class Choosing(Following):
    def action_models(self) -> None:
        from tui_llm.tui.models.models import ModelsScreen

        def chosen(model: str | None) -> None:
            if model is not None:
                self.open_model(model)

        self.app.push_screen(ModelsScreen(self.weights, self.client.list_models), chosen)
        self.client.list_models()

    @on(ModelsListed)
    def _models_listed(self, message: ModelsListed) -> None:
        from tui_llm.tui.models.models import ModelsScreen

        for screen in self.app.screen_stack:
            if isinstance(screen, ModelsScreen):
                deliver(screen, screen.show, message.models)

    @on(ModelChosen)
    def _model_chosen(self, message: ModelChosen) -> None:
        self.open_model(message.model)

    def open_model(self, model: str) -> None:
        self.stop_following()
        self.stop_stream()
        self.client.open(model)
