"""Whole networks: encoder, query decoder and a readout, one class for each kind of answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poyo_ssl.model.encoder import Encoder, QueryDecoder
from poyo_ssl.model.movie_decoder import SkipDecoder
from poyo_ssl.windows.activity import Windows


class InstantReader(nn.Module):
    """Asks the latents learned questions about one instant of every window.

    Args:
        encoder: Gives latents; its rotary time embedding serves the queries too.
        num_queries: Questions asked; their answers are concatenated.
        query_time: The instant, seconds from the window's start.
    """

    def __init__(self, encoder: Encoder, *, num_queries: int, query_time: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.query_embedding = nn.Parameter(torch.randn(num_queries, encoder.config.dim))
        self.query_decoder = QueryDecoder(encoder.config)
        self.query_time = query_time

    @property
    def dim_out(self) -> int:
        """Size of the concatenated answers."""
        return self.query_embedding.numel()

    def forward(self, groups: Sequence[Windows]) -> Tensor:
        """Windows of one or several recordings -> answers (all windows, num_queries * D)."""
        activity = groups[0].activity
        latents = self.encoder.encode_groups(groups)
        queries = self.query_embedding.expand(len(latents), -1, -1)
        times = activity.new_full(queries.shape[:2], self.query_time)
        answers = self.query_decoder(
            queries,
            latents,
            self.encoder.rotary(times),
            self.encoder.latent_rotary(activity.shape[1]),
        )
        return answers.flatten(1)


class LabelDecoder(nn.Module):
    """Which label was shown: one query, one linear readout.

    Args:
        encoder: Fresh or pretrained.
        num_classes: Possible answers.
        query_time: The instant asked about, seconds from the window's start.
    """

    def __init__(self, encoder: Encoder, *, num_classes: int, query_time: float) -> None:
        super().__init__()
        self.reader = InstantReader(encoder, num_queries=1, query_time=query_time)
        self.readout = nn.Linear(self.reader.dim_out, num_classes)

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
