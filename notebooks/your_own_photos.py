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
# From a folder of photos to a file that another program can use: check the photos, train, read the report, export. It
# works with a few dozen images a class, though more are better, and needs no graphics card.

# %%
# Installs Onsight where it is missing, as on Colab, and does nothing elsewhere. Before its first release, upload a
# wheel (`pip wheel --no-deps .` makes one) and name that file instead.
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
# Put your photos into a folder with one sub-folder for each class, named like the class:
#
# ```
# photos/
#   cat/   1.jpg  2.jpg  …
#   dog/   holiday.png  …
# ```
#
# A zip of such a folder will do too, or a CSV file with the columns `path` and `label`. Names of files mean nothing. On
# Colab, upload the zip with the folder symbol on the left.
#
# Where `PHOTOS` is empty, the notebook writes a folder with some images of a data set, so that you can see it work.

# %% tags=["parameters"]
PHOTOS = ""  # such as "photos" or "photos.zip"
NEW_PHOTOS = []  # paths of images to ask about at the end
STAND_IN = "cifar10"  # where PHOTOS is empty, images are taken from this data set,
PICTURES = 250  # so many of each of its last three classes
EPOCHS = 15  # more take longer and are better; None: as many as fit the number of images

# %%
if not PHOTOS:
    try:
        data = onsight.load_dataset(STAND_IN)
    except onsight.DataError as error:
        print(f"{error}\n\nTaking digits instead.")
        data = onsight.load_dataset("digits")
    PHOTOS = "stand-in-photos"  # a folder of its own: yours is not touched
    first, second, third = (Path(PHOTOS, name) for name in data.classes[-3:])
    for folder in (first, second, third):
        folder.mkdir(parents=True, exist_ok=True)
        wanted = np.flatnonzero(data.labels == data.classes.index(folder.name))[:PICTURES]
        for number, index in enumerate(wanted):
            Image.fromarray(data.images[index]).save(folder / f"{number:03}.jpg", quality=95)
    # Three accidents that happen to everybody: the same image twice, one under two labels, half an upload.
    shutil.copy(first / "000.jpg", first / "000 (copy).jpg")
    shutil.copy(first / "001.jpg", second / "found again.jpg")
    half = (third / "002.jpg").read_bytes()
    (third / "002.jpg").write_bytes(half[: len(half) // 2])

photos = onsight.load_dataset(PHOTOS)
photos

# %% [markdown]
# ## 1. Check them first
#
# Most disappointments come from the images and not from the network. The commonest:
#
# - An image is there **twice**. If one copy lands in the training images and the other in the test, the test rewards
#   remembering, and the figure is a lie. Near copies count too: cropped, mirrored, brightened, saved again.
# - An image has **two labels**. Whatever the network answers, it is wrong once.
# - A file is **broken**, or blank, or tiny.
# - One class has far more images than another. A network that always answers with the large class then looks good.
#
# `check` looks for all of it. It never changes your files.

# %%
checked = onsight.check(PHOTOS, keep_list=Path("keep.txt"))
checked

# %% [markdown]
# `checks/…/check.html` shows the images side by side; look at them before you believe it. What can be dealt with by
# leaving images out is in `keep.txt`, the names of those worth keeping: of copies one, of images with two labels
# none, because nobody knows which is right.

# %% [markdown]
# ## 2. Train
#
# Only the data has to be named. What you leave out is chosen for it, with a reason that you can read under the curves:
# the size that images are brought to, the batch size, which network.
#
# **With few images, do not start from nothing.** A network that has seen a million photos knows edges, fur and wheels
# already, and only has to learn which of them make *your* classes. This is *transfer learning*. For photos of 96
# pixels and more such a network is used without asking, where its weights are on this machine or can be downloaded, and
# the reasons say so; else the network starts from random numbers, and needs more images for the same accuracy.

# %%
run = onsight.train(onsight.TrainSpec(data=PHOTOS, keep_list="keep.txt", epochs=EPOCHS))

# %%
reasons = run.record["reasons"].items()
Markdown("\n".join(f"- **{choice}**: {run.spec[choice]} ({why})" for choice, why in reasons))

# %% [markdown]
# ## 3. How good is it?
#
# Some of your images were held back from training: the test images. They are scored once, now. With few of them
# the interval is wide, and that is the honest answer: collect more images before you argue about a percent.

# %%
evaluation = onsight.evaluate(run)
evaluation

# %% [markdown]
# In plain words, with what to do next:

# %%
Markdown("\n".join(f"- {sentence}" for sentence in onsight.verdict(run)))

# %%
onsight.plots.confusion_matrix(evaluation.metrics["confusion"], run.classes)

# %% [markdown]
# **The report** has all of it on one page that needs no network: the images behind every cell of the confusion
# matrix, the worst mistakes with where the network looked, labels that are probably wrong, which kinds of images go
# badly. Open it in a browser, and mail it to whoever asks how good the model is.

# %%
print(run.report)

# %% [markdown]
# ## 4. Ask it
#
# Give it images that it has never seen: paths, a folder, or the bytes of files as here. Look at the heat maps as
# well: the brighter a place, the more it spoke for the answer. If the light is on the background, the model has found a
# short cut: perhaps all photos of one class were taken in the same place.

# %%
if not NEW_PHOTOS:  # some that were held back
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
# An export is a file that other programs open without Onsight, Keras or TensorFlow: LiteRT for phones and small
# computers here; ONNX, OpenVINO and others have the same command. Converters make mistakes silently, so every file is
# opened by its own runtime, asked about real images, and compared with Keras. One that answers otherwise is not
# written.

# %%
exported = onsight.export(run, ["litert"])
exported

# %% [markdown]
# Beside the file lies what a programmer needs: the labels, a contract of what goes in and comes out, images with the
# answers that are right for them, and a README with code that runs.

# %%
print(*sorted(str(path) for path in (run.folder / "export").rglob("*")), sep="\n")
json.loads((run.folder / "export" / "labels.json").read_text())

# %% [markdown]
# **Where to go from here.** Add images where the report says that the model is weak, and train again:
# `onsight.compare([run, better])` says whether it really is better. Whether to believe its probabilities, and how to
# let it say "unsure": `understand.ipynb`.
