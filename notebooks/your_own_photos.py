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
# # Your own photos
#
# This notebook goes from a folder of photos to a file that another program can use. You check the photos, train a
# model, read the report, and export the model. A few dozen images per class are enough to start, and more are better.
# You do not need a GPU.

# %%
# Install Onsight if it is missing, as on Colab. Before Onsight's first release, build a wheel with
# `pip wheel --no-deps .`, upload it, and put its file name into the %pip line.
try:
    import onsight
except ModuleNotFoundError:
    # %pip install --quiet "onsight[tensorflow]"
    import onsight

# %matplotlib inline
import json
import shutil
from pathlib import Path

import numpy as np
from IPython.display import Markdown
from PIL import Image

# %% [markdown]
# ## Settings
#
# Put your photos into a folder with one sub-folder per class. The name of the sub-folder is the name of the class:
#
# ```
# photos/
#   cat/   1.jpg  2.jpg  …
#   dog/   holiday.png  …
# ```
#
# You can also use a zip of such a folder, or a CSV file with the columns `path` and `label`. The names of the image
# files do not matter. On Colab, upload the zip with the folder icon on the left.
#
# If `PHOTOS` is empty, the notebook writes a folder with some images from a data set, so that you can see how it works.

# %% tags=["parameters"]
PHOTOS = ""  # for example "photos" or "photos.zip"
NEW_PHOTOS = []  # paths of images to classify at the end
STAND_IN = "cifar10"  # if PHOTOS is empty, images are taken from this data set:
IMAGES_PER_CLASS = 250  # this many from each of its last three classes
EPOCHS = 15  # more epochs take longer and give a better model; None: chosen from the number of images

# %%
if not PHOTOS:
    try:
        data = onsight.load_dataset(STAND_IN)
    except onsight.DataError as error:
        print(f"{error}\n\nUsing digits instead.")
        data = onsight.load_dataset("digits")
    PHOTOS = "stand-in-photos"  # a separate folder: your own files are not touched
    first, second, third = (Path(PHOTOS, name) for name in data.classes[-3:])
    for folder in (first, second, third):
        folder.mkdir(parents=True, exist_ok=True)
        wanted = np.flatnonzero(data.labels == data.classes.index(folder.name))[:IMAGES_PER_CLASS]
        for number, index in enumerate(wanted):
            Image.fromarray(data.images[index]).save(folder / f"{number:03}.jpg", quality=95)
    # Add three common mistakes: a duplicate image, an image with two labels, and an incomplete upload.
    shutil.copy(first / "000.jpg", first / "000 (copy).jpg")
    shutil.copy(first / "001.jpg", second / "found again.jpg")
    half = (third / "002.jpg").read_bytes()
    (third / "002.jpg").write_bytes(half[: len(half) // 2])

photos = onsight.load_dataset(PHOTOS)
photos

# %% [markdown]
# ## 1. Check the photos first
#
# When a result is disappointing, the cause is usually the images and not the network. The most common causes are:
#
# - An image is there **twice**. If one copy is in the training set and the other in the test set, the test rewards
#   memorising, and the accuracy is too high. Near-duplicates count too: images that were cropped, mirrored, brightened
#   or saved again.
# - An image has **two labels**. Whatever the network answers, it is wrong once.
# - A file is **broken**, blank or tiny.
# - One class has far more images than another. A network that always answers with the large class then looks good.
#
# `check` looks for all of these. It never changes your files.

# %%
checked = onsight.check(PHOTOS, keep_list=Path("keep.txt"))
checked

# %% [markdown]
# `checks/…/check.html` shows the images side by side. Look at them before you believe the result. Some problems are
# solved by leaving images out. `keep.txt` lists the names of the images worth keeping: one image of each group of
# copies, and no image with two labels, because nobody knows which label is right.

# %% [markdown]
# ## 2. Train
#
# You only have to name the data. Onsight chooses everything that you leave out, such as the image size, the batch size
# and the network. The reason for each choice is below the curves.
#
# **If you have few images, do not start from nothing.** A network that has seen a million photos already knows edges,
# fur and wheels. It only has to learn which of them make up *your* classes. This is called *transfer learning*.
#
# For photos of 96 pixels or more, Onsight uses such a pretrained network by default if its weights are on this machine
# or can be downloaded. The reasons tell you which network was used. Otherwise the network starts from random weights,
# and it needs more images to reach the same accuracy.

# %%
run = onsight.train(onsight.TrainSpec(data=PHOTOS, keep_list="keep.txt", epochs=EPOCHS))

# %%
reasons = run.record["reasons"].items()
Markdown("\n".join(f"- **{choice}**: {run.spec[choice]} ({why})" for choice, why in reasons))

# %% [markdown]
# ## 3. How good is it?
#
# Onsight held out some of your images from training: the test images. Now the model is scored on them, once. With few
# test images the interval is wide, and that is the honest answer. Collect more images before you argue about one
# percentage point.

# %%
evaluation = onsight.evaluate(run)
evaluation

# %% [markdown]
# Here is the result in plain words, with what to do next:

# %%
Markdown("\n".join(f"- {sentence}" for sentence in onsight.verdict(run)))

# %%
onsight.plots.confusion_matrix(evaluation.metrics["confusion"], run.classes)

# %% [markdown]
# **The report** has everything on one page that works offline. It shows the images behind every cell of the confusion
# matrix, the worst mistakes with heat maps of what the network looked at, labels that are probably wrong, and the kinds
# of images that the model gets wrong. Open it in a browser, or email it to anyone who asks how good the model is.

# %%
print(run.report)

# %% [markdown]
# ## 4. Classify new images
#
# Give the model images that it has never seen. You can pass paths, a folder, or the bytes of files, as here.
#
# Look at the heat maps as well. The brighter an area, the more it supports the answer. If the bright areas are on the
# background, the model has found a shortcut. Perhaps all photos of one class were taken in the same place.

# %%
if not NEW_PHOTOS:  # use some of the held-out images
    held_back = run.dataset["split"]["test"]
    some = held_back[:: max(1, len(held_back) // 3)][:3]
    NEW_PHOTOS = [photos.read(photos.names.index(name)) for name in some]
onsight.predict(run, NEW_PHOTOS)

# %%
figure, method = onsight.explain(run, NEW_PHOTOS)
figure

# %% [markdown]
# ## 5. Use it elsewhere
#
# Other programs can open an exported file without Onsight, Keras or TensorFlow. Here we export to LiteRT, for phones
# and small computers. The same command exports to ONNX, OpenVINO and other formats.
#
# Converters can make mistakes without an error. Onsight therefore opens every file with the runtime of its format, runs
# it on real images, and compares the answers with those of Keras. It does not write a file whose answers differ.

# %%
exported = onsight.export(run, ["litert"])
exported

# %% [markdown]
# Next to the file is what a programmer needs: the labels, a contract that describes the input and the output, a few
# images with the answers that the file must give for them, and a README with working code.

# %%
print(*sorted(str(path) for path in (run.folder / "export").rglob("*")), sep="\n")
json.loads((run.folder / "export" / "labels.json").read_text())

# %% [markdown]
# **Where to go from here**
#
# - Add images where the report says that the model is weak, and train again. `onsight.compare([run, better])` shows
#   whether the new model is really better.
# - Find out whether you can trust the probabilities, and how to let the model answer "unsure": `understand.ipynb`.
