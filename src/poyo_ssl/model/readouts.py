"""Whole networks: encoder, query decoder and a readout, one class for each kind of answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poyo_ssl.model.encoder import Encoder, EncoderConfig, QueryDecoder
from poyo_ssl.model.movie_decoder import SkipDecoder
from poyo_ssl.windows.activity import Windows


class Questions(nn.Module):
    """Learned questions about one instant of every window, asked of an encoder's latents.

    Args:
        config: That of the encoder.
        num_queries: Questions asked; their answers are concatenated.
        query_time: The instant, seconds from the window's start.
    """

    def __init__(self, config: EncoderConfig, *, num_queries: int, query_time: float) -> None:
        super().__init__()
        self.query_embedding = nn.Parameter(torch.randn(num_queries, config.dim))
        self.query_decoder = QueryDecoder(config)
        self.query_time = query_time

    @property
    def dim_out(self) -> int:
        """Size of the concatenated answers."""
        return self.query_embedding.numel()

    def ask(self, encoder: Encoder, latents: Tensor, num_timesteps: int) -> Tensor:
        """Latents (B, L, D) of windows of so many imaging samples -> (B, num_queries * D)."""
        queries = self.query_embedding.expand(len(latents), -1, -1)
        times = latents.new_full(queries.shape[:2], self.query_time)
        answers: Tensor = self.query_decoder(
            queries, latents, encoder.rotary(times), encoder.latent_phases(num_timesteps)
        )
        return answers.flatten(1)


class InstantReader(Questions):
    """The same together with the encoder that is asked.

    Args:
        encoder: Gives latents; its rotary time embedding serves the queries too.
        num_queries: Questions asked; their answers are concatenated.
        query_time: The instant, seconds from the window's start.
    """

    def __init__(self, encoder: Encoder, *, num_queries: int, query_time: float) -> None:
        super().__init__(encoder.config, num_queries=num_queries, query_time=query_time)
        self.encoder = encoder

    def forward(self, groups: Sequence[Windows]) -> Tensor:
        """Windows of one or several recordings -> answers (all windows, num_queries * D)."""
        latents = self.encoder.encode_groups(groups)
        return self.ask(self.encoder, latents, groups[0].activity.shape[1])


class LabelHead(nn.Module):
    """What tells which label was shown from an encoder's latents: one query, one linear readout.

    Args:
        reader: Asks one question.
        num_classes: Possible answers.
    """

    def __init__(self, reader: Questions, num_classes: int) -> None:
        super().__init__()
        self.reader = reader
        self.readout = nn.Linear(reader.dim_out, num_classes)

    def answer(self, encoder: Encoder, latents: Tensor, num_timesteps: int) -> Tensor:
        """Latents (B, L, D) of windows of so many imaging samples -> logits (B, num_classes)."""
        logits: Tensor = self.readout(self.reader.ask(encoder, latents, num_timesteps))
        return logits


class LabelDecoder(LabelHead):
    """The same together with its encoder.

    Args:
        encoder: Fresh or pretrained.
        num_classes: Possible answers.
        query_time: The instant asked about, seconds from the window's start.
    """

    reader: InstantReader

    def __init__(self, encoder: Encoder, *, num_classes: int, query_time: float) -> None:
        super().__init__(InstantReader(encoder, num_queries=1, query_time=query_time), num_classes)

    @property
    def encoder(self) -> Encoder:
        """The encoder inside."""
        return self.reader.encoder

    def forward(self, *groups: Windows) -> Tensor:
        """Windows of one or several recordings -> logits (all windows, num_classes)."""
        logits: Tensor = self.readout(self.reader(groups))
        return logits


class MovieDecoder(nn.Module):
    """Which picture was shown: a few queries, then a skip-connection UNet decoder.

    Args:
        encoder: Fresh or pretrained.
        mean_frame: Mean training frame in [0, 1], (64, 128).
        query_time: When the asked movie frame was shown, seconds from the window's start.
        components: What a linear teacher scores, (num_components, 64, 128); None without one.
        num_queries: Answers that describe the picture together.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        mean_frame: Tensor,
        query_time: float,
        num_queries: int = 4,
        components: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.reader = InstantReader(encoder, num_queries=num_queries, query_time=query_time)
        if components is None:
            components = mean_frame.new_empty(0, *mean_frame.shape)
        self.image_decoder = SkipDecoder(self.reader.dim_out, mean_frame, components)

    @property
    def encoder(self) -> Encoder:
        """The encoder inside."""
        return self.reader.encoder

    def forward(self, *groups: Windows, scores: Tensor | None = None) -> Tensor:
        """Windows of one or several recordings -> grey pictures in [0, 1], (all, 64, 128).

        ``scores`` are the linear teacher's component scores, (all windows, num_components).
        """
        answers = self.reader(groups)
        if scores is None:
            scores = answers.new_zeros(len(answers), len(self.image_decoder.components))
        pictures: Tensor = self.image_decoder(answers, scores)
        return pictures
