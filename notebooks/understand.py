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
# Accuracy is one number. Before you let a model decide anything, ask more about it:
#
# 1. Can you trust its probabilities?
# 2. When should it answer "unsure"?
# 3. What do noise and blur do to it?
# 4. Are the labels that it is judged by right?
# 5. Which parts of an image does its answer depend on?
# 6. Which kinds of images does it get wrong most often?
# 7. Is it really better than another model?
#
# This notebook asks these questions about two models. They are the same network with the same settings, but the second
# was trained on images that were shifted and degraded at random. Was that worth it?

# %%
# Install Onsight if it is missing, as on Colab. Before Onsight's first release, build a wheel with
# `pip wheel --no-deps .`, upload it, and put its file name into the %pip line.
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
DATA = "cifar10"  # or a folder of your photos; if the data cannot be loaded, the notebook uses digits
IMAGES = 6000  # images drawn at random from the data set: enough for this notebook, and fast to train on; None: all
EPOCHS = 5
MIN_PRECISION = 0.8  # the share of correct answers wanted among the answers that are not "unsure"

# %%
try:
    data = onsight.load_dataset(DATA)
except onsight.DataError as error:
    print(f"{error}\n\nUsing digits instead.")
    DATA, data = "digits", onsight.load_dataset("digits")
chosen = np.sort(np.random.default_rng(0).permutation(len(data))[:IMAGES])
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
# Both models are scored on the test images. They are also scored on a part of the test images under 15 corruptions,
# each at 5 strengths (section 3).

# %%
scored = onsight.evaluate(plain, robustness=True, quick=True)
scored

# %%
scored_robust = onsight.evaluate(robust, robustness=True, quick=True)
scored_robust

# %% [markdown]
# ## 1. Calibration: can you trust the probabilities?
#
# Suppose the model answers with a probability of 70 % a thousand times. About seven hundred of these answers should be
# right. If so, the model is *calibrated*, and you can base a decision on its probabilities.
#
# In the plots below, the answers are sorted into bins by their probability. The height of a bar is the accuracy of the
# answers in that bin. In a calibrated model, each bar ends on the dashed line. A bar below the line means that the
# model is over-confident. Networks that were trained for a long time often are.
#
# A single number can correct this: the *temperature*, which is fitted on the validation images. All outputs of the
# network are divided by it before they become probabilities. This changes no answer, only its probability. If there
# was little to correct, or if there are few validation images to fit it on, the error can even rise a little. The
# titles show the error before and after.


# %%
def draw_calibration(axes, bins, title):
    """Draw the accuracy of the answers in each probability bin."""
    filled = [each for each in bins if each["count"]]
    middles = [(each["low"] + each["high"]) / 2 for each in filled]
    axes.bar(middles, [each["accuracy"] for each in filled], width=0.06)
    axes.plot([0, 1], [0, 1], "--", color="grey")
    axes.set(title=title, xlim=(0, 1), ylim=(0, 1))
    axes.set(xlabel="probability of the answer", ylabel="accuracy")


figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
now, before = scored.metrics, scored.metrics["before_temperature"]
errors = [f"error {100 * each['ece']:.1f} points" for each in (before, now)]
draw_calibration(axes[0], before["calibration"], f"without temperature: {errors[0]}")
draw_calibration(axes[1], now["calibration"], f"with temperature: {errors[1]}")
print(f"temperature {scored.metrics['temperature']:.3f} (a value above 1 makes the model less confident)")

# %% [markdown]
# The error in the titles is the *expected calibration error*: the mean distance between the bars and the line, with
# each bar weighted by its number of answers.

# %% [markdown]
# ## 2. Let the model answer "unsure"
#
# A model that must always answer is sometimes wrong. It is often better not to answer at all. If the probability is
# below a threshold, the model answers "unsure", and a person looks at the image.
#
# The threshold was chosen on the *validation* images. It is set so that even the lower end of the interval for the
# share of correct answers reaches `MIN_PRECISION` there. Here you see whether this also holds on the test images.
#
# The curve shows the price. Further to the left, the model answers fewer images: only those that it is most confident
# about. If accuracy rises fast towards the left, the model is good: it knows what it does not know.

# %%
points = scored.metrics["coverage"]
figure, axes = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
axes.plot([each["coverage"] for each in points], [each["accuracy"] for each in points])
axes.set(xlabel="share of images answered, most confident first", ylabel="accuracy of these answers")
axes.grid(alpha=0.3)

# %%
Markdown("\n".join(f"- {sentence}" for sentence in scored.findings))

# %% [markdown]
# Be careful with one thing. "Unsure" catches difficult images of the *known* classes. If an image shows something else
# altogether, the model often answers with high confidence, because it never learned what "something else" looks like.
# The finding above about images of something else measures this.

# %% [markdown]
# ## 3. Robustness: what do noise, blur and weather do?
#
# The test images come from the same source as the training images, so the two are very similar. In real use, the lens
# is dirty, the light is poor, or the camera shakes. This is one image under a few of the corruptions, at medium
# strength.

# %%
test = scored.predictions
place = {name: index for index, name in enumerate(data.names)}
pixels = onsight.load_pixels(data, plain.spec["image_size"]).images  # at the image size of the network
one = pixels[place[test.names[0]]][np.newaxis]
some = ["gaussian_noise", "glass_blur", "motion_blur", "snow"]
some += ["fog", "contrast", "pixelate", "jpeg_compression"]
changed = [onsight.corrupt(np.asarray(one), name, 3, np.random.default_rng(0))[0] for name in some]
names = [name.replace("_", " ") for name in some]
title = f"One image: {test.classes[test.labels[0]]}"
onsight.plots.sample_images(np.stack(changed), names, columns=4, title=title)

# %% [markdown]
# The next plot shows the accuracy under each corruption, averaged over the five strengths. The legend gives the mean
# over all corruptions and the accuracy on the same images without corruption ("clean"). People hardly notice most of
# these changes. A network is affected by all of them, unless it has seen something similar in training.

# %%
found = [each.robustness for each in (scored, scored_robust)]
kinds = sorted(found[0]["corruptions"], key=lambda kind: np.mean(found[0]["corruptions"][kind]))
figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
for each, label, mark in zip(found, ("plain", "robust"), ("o", "s"), strict=True):
    means = [np.mean(each["corruptions"][kind]) for kind in kinds]
    label = f"{label}: mean {each['mean']:.1%}, clean {each['clean']:.1%}"
    axes.plot(means, range(len(kinds)), mark, label=label)
axes.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
axes.set(xlabel=f"mean accuracy on {found[0]['n']:,} images at five strengths")
axes.legend()
axes.grid(alpha=0.3)

# %% [markdown]
# The robust model was trained with its own kinds of blur, noise and low contrast. If it gains on those corruptions, the
# gain is partly familiarity. Look at the corruptions that it has never seen, such as snow, fog or pixelate.
#
# Degraded images are also harder to learn from. With few images and few epochs, as in the settings above, robust
# training may cost more accuracy than it brings. The gain comes with longer training.

# %% [markdown]
# ## 4. Are the labels right?
#
# A model is judged by labels, and people made these labels. If a model that is usually right is very confident in a
# class other than the label, you should check the label. The method is called *confident learning*. For each class, it
# measures how confident the model usually is on images of that class. It reports an image if the model is at least this
# confident in a class other than the image's label.
#
# A model that is often wrong would mostly report its own mistakes. Onsight therefore reports labels only if the model
# agrees with at least 80 % of them.

# %%
labels = scored.label_errors
if reasons := labels.get("not_listed"):
    print("labels to check:", *reasons)
else:
    print(f"labels to check: {len(labels['suspects']):,} of {labels['checked']:,} in the test set")
suspects = labels["suspects"][:8]
row = {name: index for index, name in enumerate(test.names)}
shown = np.stack([np.asarray(pixels[place[each["path"]]]) for each in suspects]) if suspects else None
onsight.plots.predictions(
    shown,
    [each["label"] for each in suspects],
    test.probabilities[[row[each["path"]] for each in suspects]],
    test.classes,
    title="Labels that may be wrong",
) if suspects else None

# %% [markdown]
# With the settings above, the model is too weak for this. Set `IMAGES` to None and `EPOCHS` to 12, and it reports
# labels. Judge each one for yourself: some are mistakes of the model, on some images people would disagree too, and a
# few labels are plainly wrong. The better the model, the more of the reported labels are really wrong. `onsight
# evaluate --folds 5` searches the training images in the same way. For photos, `onsight check` searches all labels
# before any training.

# %% [markdown]
# ## 5. Which parts of the image matter?
#
# *Grad-CAM* shows which parts of the image support the answer. Ideally the bright areas are on the object itself. If
# they are on the background, the model uses a shortcut and will fail on the first photo taken somewhere else. A heat
# map shows what the answer depends on. It does not show that the reason was a good one.

# %%
four = [np.asarray(pixels[place[name]]) for name in test.names[:4]]
figure, method = onsight.explain(plain, four)
figure

# %% [markdown]
# ## 6. Slices: which kinds of images does the model get wrong?
#
# An average hides groups. Onsight therefore also computes the accuracy by class, by brightness, and by whatever else is
# known about the files. A CSV file adds your own columns, such as the camera or the place
# (`onsight evaluate --slices mine.csv`).
#
# If you look at many groups, some group does badly by chance. The table therefore says "worse" only if chance can be
# ruled out even after looking at all of the groups.

# %%
slices = scored.slices["slices"]
lines = ["| by | group | images | accuracy | 95 % interval | worse than the rest |", "|---|---|---|---|---|---|"]
for each in slices[:8]:
    share = f"{each['accuracy']:.1%} | {each['low']:.1%} to {each['high']:.1%}"
    lines.append(f"| {each['by']} | {each['value']} | {each['n']:,} | {share} | {'yes' if each['worse'] else ''} |")
Markdown("\n".join(lines))

# %% [markdown]
# ## 7. Which of the two is better?
#
# Two models almost never have the same accuracy, so one of them is always ahead. The question is whether it would be
# ahead again. Both models were tested on the same images, so the comparison counts only the images that exactly one of
# them gets right. If each model wins about half of these, the difference could be due to chance.

# %%
onsight.compare([plain, robust])

# %% [markdown]
# This comparison is on clean images. Under corruptions, the other model may be better (section 3). You have to decide
# which of the two matters, because the model does not know where its camera will be used.
#
# There is one more limit: the test compares these two *trained models*. If you train both again with other seeds, each
# result is a little different. `onsight train --seeds 5` shows how much of a difference is luck of this kind.
