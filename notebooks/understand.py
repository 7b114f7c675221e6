# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Understand a model
#
# An accuracy is one number. Before a model decides anything, ask more of it: can its probabilities be believed? When
# should it say "unsure"? What do noise and blur do to it? Are the labels right that it is judged by? Where did it look?
# Which kinds of images go badly? And is it really better than the other one?
#
# Two models are asked here. They are the same network with the same settings, but the second was trained on images
# that were moved and made worse at random. Was that worth it?

# %%
# Installs Onsight where it is missing, as on Colab, and does nothing elsewhere. Before its first release, upload a
# wheel (`pip wheel --no-deps .` makes one) and name that file instead.
try:
    import onsight
except ModuleNotFoundError:
    # %pip install --quiet "onsight[tensorflow]"
    import onsight

# %matplotlib inline
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

# %% tags=["parameters"]
DATA = "cifar10"  # digits where it cannot be had; or a folder of your photos
PICTURES = 6000  # of the data set, drawn at random: enough for this, and soon trained; None takes all
EPOCHS = 5
MIN_PRECISION = 0.8  # of the answers that are not "unsure", so many shall be right

# %%
try:
    data = onsight.load_dataset(DATA)
except onsight.DataError as error:
    print(f"{error}\n\nTaking digits instead.")
    DATA, data = "digits", onsight.load_dataset("digits")
chosen = np.sort(np.random.default_rng(0).permutation(len(data))[:PICTURES])
onsight.write_keep_list(Path("keep.txt"), [data.names[i] for i in chosen])
common = {
    "data": DATA,
    "keep_list": "keep.txt",
    "preset": "quick",
    "epochs": EPOCHS,
    "min_precision": MIN_PRECISION,
}
plain = onsight.train(onsight.TrainSpec(**common))

# %%
robust = onsight.train(onsight.TrainSpec(**common, augmentation="robust"))

# %% [markdown]
# Both are scored on the test images, and on a part of them with 15 corruptions at 5 strengths each (section 3).

# %%
scored = onsight.evaluate(plain, robustness=True, quick=True)
scored

# %%
scored_robust = onsight.evaluate(robust, robustness=True, quick=True)
scored_robust

# %% [markdown]
# ## 1. Calibration: can the probabilities be believed?
#
# If it says "70 %" a thousand times, about seven hundred of those answers should be right. Then it is *calibrated*, and
# the probability is worth something: you can weigh a decision with it.
#
# Below, answers are sorted into bins by their probability. The bars show how many of a bin were right; on the dashed
# line they should end. Bars below the line: it promises too much. Networks that are trained for long often do. A single
# number mends that where it is bad, the *temperature*, found on validation images: all of the network's outputs are
# divided by it before they become probabilities. That changes no answer, only how sure it sounds. Where there was
# little to mend, or few validation images to find it on, the error may also rise a little: the titles tell.


# %%
def draw_calibration(axes, bins, title):
    """Draw how often answers of each probability are right."""
    filled = [each for each in bins if each["count"]]
    middles = [(each["low"] + each["high"]) / 2 for each in filled]
    axes.bar(middles, [each["accuracy"] for each in filled], width=0.06)
    axes.plot([0, 1], [0, 1], "--", color="grey")
    axes.set(title=title, xlim=(0, 1), ylim=(0, 1))
    axes.set(xlabel="probability of the answer", ylabel="share that is right")


figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
now, before = scored.metrics, scored.metrics["before_temperature"]
errors = [f"error {100 * each['ece']:.1f} points" for each in (before, now)]
draw_calibration(axes[0], before["calibration"], f"without temperature: {errors[0]}")
draw_calibration(axes[1], now["calibration"], f"as it answers: {errors[1]}")
print(f"temperature {scored.metrics['temperature']:.3f} (above 1: it was made less sure)")

# %% [markdown]
# The *expected calibration error* in the titles is the mean distance between bars and line, each bar counting as many
# times as it has answers.

# %% [markdown]
# ## 2. Let it say "unsure"
#
# A model that must answer always will be wrong now and then. Often it is better to answer less: below a threshold of
# the probability it says "unsure", and a person looks. The threshold was chosen on *validation* images, such that the
# share of right answers there, at the lower end of its interval, is what `MIN_PRECISION` asks for; whether it holds on
# the test, you see here.
#
# The curve shows the price. From right to left, only the surest images are answered. A good model climbs fast: it
# knows what it does not know.

# %%
points = scored.metrics["coverage"]
figure, axes = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
axes.plot([each["coverage"] for each in points], [each["accuracy"] for each in points])
axes.set(xlabel="share of the images that is answered, surest first", ylabel="share of these that is right")
axes.grid(alpha=0.3)

# %%
Markdown("\n".join(f"- {sentence}" for sentence in scored.findings))

# %% [markdown]
# Be careful with one thing. "Unsure" catches difficult images of the *known* classes. An image of something else
# altogether is often answered with great confidence, because the network was never taught what "something else" looks
# like. The sentence about far-off images above measures that.

# %% [markdown]
# ## 3. Robustness: what do noise, blur and weather do?
#
# Test images come from the same source as training images, and so are much alike. In use, a lens is dirty, light is
# poor, a camera shakes. Here is one image under a few of the corruptions, at the middle strength.

# %%
test = scored.predictions
place = {name: index for index, name in enumerate(data.names)}
pixels = onsight.load_pixels(data, plain.spec["image_size"]).images  # at the size that the network takes
one = pixels[place[test.names[0]]][np.newaxis]
some = ["gaussian_noise", "glass_blur", "motion_blur", "snow"]
some += ["fog", "contrast", "pixelate", "jpeg_compression"]
changed = [onsight.corrupt(np.asarray(one), name, 3, np.random.default_rng(0))[0] for name in some]
names = [name.replace("_", " ") for name in some]
title = f"One image: {test.classes[test.labels[0]]}"
onsight.plots.sample_images(np.stack(changed), names, columns=4, title=title)

# %% [markdown]
# And this is how many of the answers remain right, averaged over the strengths. People hardly notice most of these
# changes. A network notices all of them, unless it has met something like them in training.

# %%
found = [each.robustness for each in (scored, scored_robust)]
kinds = sorted(found[0]["corruptions"], key=lambda kind: np.mean(found[0]["corruptions"][kind]))
figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
for each, label, mark in zip(found, ("plain", "robust"), ("o", "s"), strict=True):
    means = [np.mean(each["corruptions"][kind]) for kind in kinds]
    label = f"{label}: {each['mean']:.1%} on average, {each['clean']:.1%} clean"
    axes.plot(means, range(len(kinds)), mark, label=label)
axes.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
axes.set(xlabel=f"share that is right, of {found[0]['n']:,} images at five strengths")
axes.legend()
axes.grid(alpha=0.3)

# %% [markdown]
# The robust model was trained with blur, noise and weak contrast of its own kind. Where it gains on those, that is
# partly familiarity: look at the corruptions that it has never met, such as snow, fog or pixelate. And worse images
# are harder to learn from. With few images and few epochs, as in the settings above, that may cost more than it
# brings; the gain comes with longer training.

# %% [markdown]
# ## 4. Are the labels right?
#
# A model is judged by labels, and people made these. Where a model that is usually right is very sure of another class
# than the label says, the label is worth a second look. The method, *confident learning*, asks for each class how sure
# the model usually is of it, and reports the images that pass this bar for another class than their own.

# %%
labels = scored.label_errors
print(f"{len(labels['suspects']):,} of {labels['checked']:,} test labels are worth a look")
suspects = labels["suspects"][:8]
row = {name: index for index, name in enumerate(test.names)}
shown = np.stack([np.asarray(pixels[place[each["path"]]]) for each in suspects]) if suspects else None
onsight.plots.predictions(
    shown,
    [each["label"] for each in suspects],
    test.probabilities[[row[each["path"]] for each in suspects]],
    test.classes,
    title="Labels that the model does not believe",
) if suspects else "No suspects."

# %% [markdown]
# Judge for yourself. Most of them will be the model's mistakes, since it is not that good; some are images on which
# people would quarrel; a few labels may be plainly wrong. The better the model, the more of its suspects are real.
# `onsight evaluate --folds 5` searches the training images in the same way.

# %% [markdown]
# ## 5. Where did it look?
#
# *Grad-CAM* asks which places of the image spoke for the answer. Light on the thing itself is what you hope for.
# Light on the background means a short cut, which will fail on the first photo taken elsewhere. It tells what the
# answer depends on, and not that the reason was a good one.

# %%
four = [np.asarray(pixels[place[name]]) for name in test.names[:4]]
figure, method = onsight.explain(plain, four)
figure

# %% [markdown]
# ## 6. Slices: which kinds of images go badly?
#
# An average hides groups. The accuracy is therefore cut by class, by brightness and by what else is known of the files;
# columns of your own, such as the camera or the place, come in by a CSV file (`onsight evaluate --slices mine.csv`).
# Look long enough and some group is bad by chance, so "worse" is only said where chance is ruled out even after having
# looked at all of them.

# %%
slices = scored.slices["slices"]
lines = ["| by | group | images | right | 95 % | worse than the rest |", "|---|---|---|---|---|---|"]
for each in slices[:8]:
    share = f"{each['accuracy']:.1%} | {each['low']:.1%} to {each['high']:.1%}"
    lines.append(f"| {each['by']} | {each['value']} | {each['n']:,} | {share} | {'yes' if each['worse'] else ''} |")
Markdown("\n".join(lines))

# %% [markdown]
# ## 7. Which of the two is better?
#
# Two accuracies differ, and one of them is larger: that always happens. The question is whether it would happen again.
# Both models have seen the same images, so only those tell them apart that one alone has right. If these are divided
# about evenly, the rest is luck.

# %%
onsight.compare([plain, robust])

# %% [markdown]
# That was about clean images. Under corruptions the answer may be another one (section 3), and it is for you to say
# which matters: the model does not know where its camera will hang.
#
# One more thing that it cannot tell: the test compares these two *trained models*. Train both again with other seeds,
# and each will come out a little different. `onsight train --seeds 5` shows how much of a difference is luck of that
# kind.
