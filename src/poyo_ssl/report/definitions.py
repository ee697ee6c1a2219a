"""What the words of the report mean, for a reader who was not there."""

METRICS = {
    "r2": "R²: the part of the variance of the test values that was decoded; guessing the mean "
    "scores 0, and worse than that is negative.",
    "accuracy": "Accuracy: the share of test trials whose class was decoded correctly.",
    "balanced_accuracy": "Balanced accuracy: the accuracy within each class, averaged over "
    "classes, so that a frequent class counts no more than a rare one.",
    "within_1s": "Fraction within 1 s: the share of test samples whose decoded movie frame lies "
    "within one second of the frame that was shown.",
    "within_200ms": "Fraction within 0.2 s: the same, a fifth of a second apart at most.",
    "ssim": "SSIM: structural similarity of the decoded and the true movie frame (Wang et al. "
    "2004); 1 is identity. A blurred average of the movie already scores well above 0, so compare "
    "with the mean frame.",
    "psnr": "PSNR: peak signal-to-noise ratio of the decoded movie frame in decibels; higher is "
    "closer.",
    "correlation": "Pixel correlation: Pearson's correlation of the decoded and true pixels of a "
    "movie frame.",
}
SPLITS = {
    "trial": "Tested on trials that nothing learned from: the last of every block, where neither "
    "folds nor values to hold out are asked for.",
    "repeat": "Tested on whole showings of the movie. Every test frame was also shown during "
    "training, so a look-up table of frames can score high here: read it beside the "
    "held-out movie frames.",
    "held_out_frames": "Tested on contiguous parts of the movie that were left out of training in "
    "every showing, with a guard gap on either side: only a decoder that generalises to "
    "unseen pictures can score here.",
}
INTERVALS = [
    "Mean: over recordings of the mean over seeds. Every arm is tested on the same recordings, "
    "units and test samples.",
    "95 %: how far the mean would move with other test samples; from three seeds on, also with "
    "networks of other random seeds; from three recordings on, also with other recordings. Below "
    "three, it is about these networks and these recordings alone. It never leaves the possible "
    "values.",
    "Over seeds: how far the mean would move if the networks were trained again from other random "
    "seeds (Student's t, from three seeds on). Reference decoders have no seed.",
    "Over trials: how far the mean of these networks would move with other test samples and, from "
    "three on, other recordings. Of right and wrong trials these are Wilson's intervals; "
    "neighbouring samples of movies and of values are averaged before.",
    "p of chance: how often the answers would fit as well if the labels of the test part had come "
    "in another order (permutation test, one-sided; labels that resemble their neighbours are "
    "shifted). There is none where the test part is too short for them, nor for pictures: compare "
    "with the mean frame.",
    "Right: test trials decoded correctly, the mean over seeds.",
    "Gain over scratch: the score minus that of the same network trained from scratch, paired: "
    "the same recordings, test samples and, for networks, seeds. Pretraining is said to help "
    "or to hurt only if the 95 % interval of the gain lies on one side of zero.",
    "p: how surprising the gain would be if there were none (two-sided). It is not "
    "corrected for the number of comparisons on this page.",
    "The best reference decoder is picked by its test score, which favours it over the networks.",
]
PREDICTABLE = (
    "A unit is called predictable if the skewness and the kurtosis of its ΔF/F, measured on "
    "training time only, both lie at or below the thresholds: steady activity without rare, "
    "large transients (Bae et al., arXiv:2510.18516)."
)
