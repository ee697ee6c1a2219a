"""What fitting a decoder minimises, and how fast the parts of the network learn."""

from __future__ import annotations

import torch
from torch import Tensor

from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.model.losses import frame_loss, label_loss, picture_loss, teacher_loss
from poyo_ssl.model.readouts import LabelDecoder, MovieDecoder
from poyo_ssl.training.transfer import LearningRates, full_rates
from poyo_ssl.training.window_module import WindowModule
from poyo_ssl.windows.training_batches import WindowBatch


class TransferringModule(WindowModule):
    """A decoder whose encoder learns at rates of its own.

    Args:
        network: Encoder, query and readout.
        config: Loss and training.
        rates: Learning rates of the encoder; None: everything learns.
    """

    network: LabelDecoder | MovieDecoder

    def __init__(
        self,
        network: LabelDecoder | MovieDecoder,
        config: FinetuningConfig,
        rates: LearningRates | None,
    ) -> None:
        super().__init__(network, config.training)
        self.config = config
        self.rates = rates or full_rates(network.encoder)
        self.rates.freeze(network.encoder)
        self.register_buffer("unit_rates", self.rates.units[:, None], persistent=False)
        self._embeddings = torch.empty(0)

    def learning_rate_factors(self) -> dict[str, float]:
        """Rates of everything but single rows of the unit embedding."""
        prefix = "network.reader.encoder."
        return {prefix + name: rate for name, rate in self.rates.parameters.items() if rate > 0}

    def before_step(self) -> None:
        """Remembers the embeddings of the units."""
        self._embeddings = self.network.encoder.unit_embedding.weight.detach().clone()

    def after_step(self) -> None:
        """Moves the embedding of every unit only as far as its own rate says."""
        weight = self.network.encoder.unit_embedding.weight
        assert isinstance(self.unit_rates, Tensor)
        with torch.no_grad():  # exactly the old one at a rate of 0, the new one at 1
            weight.copy_(torch.lerp(self._embeddings, weight, self.unit_rates))


class LabelDecoding(TransferringModule):
    """Cross-entropy on labelled windows; on unlabelled ones, divergence from the teacher.

    Args:
        network: Encoder, query and readout.
        config: Loss and training.
        rates: Learning rates of the encoder; None: everything learns.
    """

    network: LabelDecoder

    def __init__(
        self,
        network: LabelDecoder,
        config: FinetuningConfig,
        rates: LearningRates | None = None,
    ) -> None:
        super().__init__(network, config, rates)

    def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
        """``loss``, its terms, and the accuracy on the labelled windows."""
        labelled = [group for group in batch if group.teacher_answer is None]
        taught = [group for group in batch if group.teacher_answer is not None]
        terms: dict[str, Tensor] = {}
        if labelled:
            logits = self.network(*(group.windows for group in labelled))
            target = torch.cat([g.target for g in labelled])
            terms["cross_entropy"] = self.labelled_loss(logits, target)
            terms["accuracy"] = (logits.argmax(1) == target).float().mean()
        if taught:
            logits = self.network(*(group.windows for group in taught))
            answers = torch.cat([g.teacher_answer for g in taught if g.teacher_answer is not None])
            terms["teacher"] = teacher_loss(logits, answers)
        zero = torch.zeros((), device=self.device)
        terms["loss"] = terms.get("cross_entropy", zero) + terms.get("teacher", zero)
        return terms

    def labelled_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of logits (B, K) of windows whose label is known, (B,)."""
        return label_loss(logits, target, self.config.label_smoothing)


class FrameDecoding(LabelDecoding):
    """The same for movie frames, of which those near the one shown are right, too.

    Args:
        network: Encoder, query and readout.
        config: Loss and training.
        rates: Learning rates of the encoder; None: everything learns.
        frame_period: Seconds that a movie frame is shown.
    """

    def __init__(
        self,
        network: LabelDecoder,
        config: FinetuningConfig,
        rates: LearningRates | None = None,
        *,
        frame_period: float,
    ) -> None:
        super().__init__(network, config, rates)
        self.frame_width = config.frame_width / frame_period

    def labelled_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with a gaussian over movie frames."""
        return frame_loss(logits, target, self.frame_width, self.config.label_smoothing)


class ValueDecoding(TransferringModule):
    """Squared error of a standardised number.

    Args:
        network: Encoder, query and a readout of one number.
        config: Training.
        rates: Learning rates of the encoder; None: everything learns.
        mean: Mean of the training values.
        sd: Their standard deviation.
    """

    network: LabelDecoder

    def __init__(
        self,
        network: LabelDecoder,
        config: FinetuningConfig,
        rates: LearningRates | None = None,
        *,
        mean: float,
        sd: float,
    ) -> None:
        super().__init__(network, config, rates)
        self.mean, self.sd = mean, sd

    def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
        """``loss``: the part of the training variance that is not explained."""
        predicted = self.network(*(group.windows for group in batch))[:, 0]
        target = torch.cat([g.target for g in batch])
        return {"loss": (predicted - (target - self.mean) / self.sd).square().mean()}


class MovieDecoding(TransferringModule):
    """Mean absolute error and structural dissimilarity of reconstructed movie frames.

    Args:
        network: Encoder, queries and UNet decoder.
        config: Loss and training.
        pictures: What was shown, in [0, 1], (num_pictures, 64, 128).
        rates: Learning rates of the encoder; None: everything learns.
    """

    network: MovieDecoder

    def __init__(
        self,
        network: MovieDecoder,
        config: FinetuningConfig,
        pictures: Tensor,
        rates: LearningRates | None = None,
    ) -> None:
        super().__init__(network, config, rates)
        self.register_buffer("pictures", pictures, persistent=False)

    def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
        """``loss`` and its terms."""
        scores = [group.teacher_answer for group in batch if group.teacher_answer is not None]
        predicted = self.network(
            *(group.windows for group in batch), scores=torch.cat(scores) if scores else None
        )
        assert isinstance(self.pictures, Tensor)
        true = self.pictures[torch.cat([g.target for g in batch])]
        return picture_loss(predicted, true, self.config.ssim_weight)
