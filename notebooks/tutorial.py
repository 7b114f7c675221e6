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
# # A first image classifier
#
# In this notebook you train a model that recognises what is in an image. You look at the data, train a plain network
# and a convolutional one, read their learning curves, see which classes they confuse, classify an image of your own,
# and keep the result. The code is short, so each step also explains *why* it is there.
#
# You need some Python, but no experience with neural networks. Run the cells from top to bottom.

# %%
# Install Onsight if it is missing, as on Colab. Before Onsight's first release, build a wheel with
# `pip wheel --no-deps .`, upload it, and put its file name into the %pip line.
try:
    import onsight
except ModuleNotFoundError:
    # %pip install --quiet "onsight[tensorflow]"
    import onsight

# %matplotlib inline
import numpy as np
from PIL import Image

# %% [markdown]
# ## Settings
#
# The next cell holds everything that you may want to change. `cifar10` is downloaded. If the download is not possible,
# the notebook uses `digits` instead: small scans of handwritten digits that come with scikit-learn. An epoch is one
# pass over the training images. More epochs give a better model and take longer.

# %% tags=["parameters"]
DATA = "cifar10"
ANN_EPOCHS = 6
CNN_EPOCHS = 6
MY_IMAGES = []  # paths of your own images, for example ["cat.jpg", "my cat 2.png"]

# %% [markdown]
# ## 1. Look at the data
#
# Looking at the images is the most useful way to spend the first minutes of a project. A model can learn only what is
# in them, and it learns *everything* that is in them. That includes wrong labels. It also includes shortcuts, such as
# a blue background that always means "ship".

# %%
try:
    data = onsight.load_dataset(DATA)
except onsight.DataError as error:
    print(f"{error}\n\nUsing digits instead.")
    data = onsight.load_dataset("digits")
data

# %% [markdown]
# CIFAR-10 has ten classes of small colour photos. It dates from 2009, when computers were much less powerful, which is
# why the images are so small. A cat of 32 × 32 pixels still looks like a cat, and a network can be trained on images of
# this size without a GPU.

# %%
some = np.random.default_rng(0).permutation(len(data))[:24]
onsight.plots.sample_images(data.images[some], [data.classes[label] for label in data.labels[some]])

# %% [markdown]
# To a computer, an image is an array of numbers with three dimensions: height, width and channels. The channels are
# red, green and blue. Each number is between 0 and 255. This is the top left corner of the red channel of one image:

# %%
print("images, height, width, channels:", data.images.shape)
data.images[0, :6, :8, 0]

# %% [markdown]
# Many tutorials first divide the numbers by 255. It is then easy to forget the division later, for your own image. The
# model would give nonsense, and no error would warn you. In Onsight the division is therefore the first layer of every
# model, and you always pass the image as it is.

# %% [markdown]
# ## 2. Labels are numbers, and why one-hot
#
# The label of an image is the number of its class.

# %%
for index in some[:3].tolist():
    print(f"label {data.labels[index]} means {data.classes[data.labels[index]]}")

# %% [markdown]
# A network should not answer with a single number such as 3. That would mean that class 3 lies between classes 2 and 4,
# and that a cat is nearly a bird. Instead, the network gives one number for *each* class: a probability. To compare
# these probabilities with the true class, we write the true class in the same form: 1 for the right class and 0 for all
# others. This is the *one-hot* label.

# %%
one_hot = np.eye(len(data.classes), dtype=int)[data.labels[some[:3]]]
one_hot

# %% [markdown]
# The *loss* measures how wrong a vector of probabilities $p$ is. With the one-hot label $y$, it is
# $-\sum_i y_i \log p_i$. All terms but one are zero, so the loss is simply $-\log$ of the probability of the true
# class. A network that gives the true class 1 % pays far more than one that gives it 50 %. This teaches the network to
# be careful.

# %%
for probability in (0.01, 0.1, 0.5, 0.9, 0.99):
    print(f"probability of the true class {probability:4.0%}  ->  loss {-np.log(probability):.2f}")
print(f"the same probability for all {len(data.classes)} classes  ->  loss {np.log(len(data.classes)):.2f}")

# %% [markdown]
# Only that one term matters. Libraries therefore take the class number itself, which saves the memory for the one-hot
# array. Onsight does the same, so you never have to write one-hot labels yourself.

# %% [markdown]
# ## 3. A baseline: the plain network (ANN)
#
# Before you try anything clever, train something simple. Its accuracy is what a better idea has to beat. If the clever
# model is no better, you have learned something too.
#
# The baseline puts all numbers of the image into one long row and passes them through two dense layers. In a dense
# layer, every input is connected to every neuron. The network does not know that neighbouring pixels belong together.
#
# The output below is updated during training. Before training starts, the images are split into three parts:
#
# - **training**: the network learns from these images.
# - **validation**: these images are held out. They show during training whether the network also does well on images
#   that it does not learn from. Decisions such as "when to stop" are based on them.
# - **test**: these images are held out from *you* as well, until the end. If you look at the test result and then
#   change something, you have fitted your choice to the test images, and part of the gain may be luck.

# %%
ann = onsight.train(
    onsight.TrainSpec(data=data.name, preset="tutorial", model="mlp", augmentation="none", epochs=ANN_EPOCHS)
)

# %% [markdown]
# Open "What was chosen, and why" above. Onsight made every choice that you left open, and this list gives the reasons.
# The preset `tutorial` is what most courses teach: the Adam optimizer, a learning rate that is lowered when the
# validation loss stops falling, and early stopping. Only its *augmentation*, small random changes of the training
# images, is switched off here. The next network uses it.

# %% [markdown]
# ## 4. The convolutional network (CNN)
#
# A convolution looks at a small window of the image and applies the *same* small set of weights at every position.
# Two ideas are behind this. First, pixels that belong together are close together. Second, an ear is an ear, wherever
# it is in the image. A convolution therefore needs fewer weights, and what it learns in one corner works in all of
# them. Pooling layers between the convolutions make the image smaller, so that later windows cover more of it. The
# network first finds edges, then parts, then whole objects.

# %%
cnn = onsight.train(onsight.TrainSpec(data=data.name, preset="tutorial", model="cnn", epochs=CNN_EPOCHS))

# %% [markdown]
# Next are the layers of the CNN. Follow the shapes: the image gets smaller and gains channels, until a dense layer
# turns what is left into one number per class. The last column counts the parameters, which are the numbers that the
# network learns. Compare their total with that of the ANN. The CNN is much smaller, because it shares its weights.

# %%
print(f"the ANN has {ann.load_model().count_params():,} parameters")
cnn.load_model().summary()

# %% [markdown]
# ## 5. Read the curves
#
# The training and validation curves tell most of the story:
#
# - If both accuracies are still rising, the network is still learning, and more epochs would help.
# - If training accuracy keeps rising while validation accuracy stays the same or falls, the network is beginning to
#   memorise its training images. This is called *over-fitting*.
#
# Here validation may be above training. The reason is augmentation: each training image is moved a little at random,
# and mirrored in every other epoch, unless mirroring would change its meaning. This makes the training images harder.
# It also delays over-fitting, because the network rarely sees exactly the same image twice.

# %%
onsight.plots.curves(cnn.history())

# %% [markdown]
# ## 6. The test
#
# Now we use the test images, once. Neither the network nor you have seen them. The accuracy comes with an interval,
# because other test images would have given a different number. With few test images it could have been very
# different. If one model is ahead by less than the width of the interval, that may be luck alone.

# %%
test_of_ann = onsight.evaluate(ann)
test_of_ann

# %%
test_of_cnn = onsight.evaluate(cnn)
test_of_cnn

# %% [markdown]
# The table is the *per-class report*. Three of its terms need an explanation:
#
# - **recognised** (recall): how many of all cats did the model call a cat?
# - **precision**: how many of the images that the model called a cat are cats?
# - **F1**: one number that combines both. It is high only if both are high.
#
# A model that calls everything a cat recognises every cat, but its precision is terrible. So always look at both.
#
# Is the CNN really better, or was it luck? Both models were tested on the same images. The comparison therefore counts
# only the images that exactly one of the two models gets right.

# %%
onsight.compare([ann, cnn])

# %% [markdown]
# ## 7. What does it confuse?
#
# The confusion matrix has one row per true class and one column per answer. Correct answers are on the diagonal. Every
# other cell is one kind of mistake, and these cells tell you far more than the accuracy.
#
# Classes that look alike, such as cat and dog, are often confused in both directions. That is a good sign: a network
# that took frogs for trucks would be using a shortcut. If one column is dark in many rows, the network gives that
# answer too often.

# %%
onsight.plots.confusion_matrix(test_of_cnn.metrics["confusion"], cnn.classes)

# %% [markdown]
# These are the mistakes that the network was *most confident* about. Look at each one. Some images are hard, some
# mistakes are the network's fault, and now and then the label is wrong.

# %%
test = test_of_cnn.predictions
wrong = np.flatnonzero(test.probabilities.argmax(axis=1) != test.labels)
surest = wrong[np.argsort(-test.probabilities[wrong].max(axis=1))][:8]
place = {name: index for index, name in enumerate(data.names)}
images = data.images[[place[test.names[i]] for i in surest]]
truth = [test.classes[test.labels[i]] for i in surest]
onsight.plots.predictions(images, truth, test.probabilities[surest], test.classes) if len(
    surest
) else "The network made no mistakes."

# %% [markdown]
# ## 8. Your own image
#
# Put the path of a photo into `MY_IMAGES` in the settings. On Colab, first upload the photo with the folder icon on the
# left. Any size and format will do: Onsight crops the centre square and resizes it. Until you add a photo, two test
# images are used instead.
#
# The network must choose one of its classes. If you show it your breakfast, it still answers "ship" or "dog",
# sometimes with a high probability. `understand.ipynb` shows what you can do about that.

# %%
if not MY_IMAGES:
    for number, name in enumerate(test.names[:2], start=1):
        Image.fromarray(data.images[place[name]]).save(f"image-{number}.png")
    MY_IMAGES = ["image-1.png", "image-2.png"]
onsight.predict(cnn, MY_IMAGES)

# %% [markdown]
# ## 9. Keep it
#
# You do not have to save anything: Onsight saved everything during training. A *run* is one folder with the model,
# every choice and the reason for it, the history, the evaluation, and a report. You can move it, zip it or email it. If
# training was interrupted, `onsight.resume` continues it from this folder.

# %%
print(cnn.folder, *sorted(path.name for path in cnn.folder.iterdir()), sep="\n  ")

# %% [markdown]
# On another day, in another notebook, you can open the run by its folder and classify the images again. The answers
# are the same to the last digit.

# %%
again = onsight.open_run(cnn.folder)
before, after = onsight.predict(cnn, MY_IMAGES), onsight.predict(again, MY_IMAGES)
print("same answers:", [each.top for each in before] == [each.top for each in after])
again

# %% [markdown]
# `report.html` in that folder shows everything on one page. Open it in a browser, click on the confusion matrix, and
# see what the network was looking at when it was wrong.
#
# **Where to go from here**
#
# - Train for more epochs. The curves show whether this would help.
# - Try other networks. `onsight models` in a terminal lists them.
# - Use your own photos: `your_own_photos.ipynb`.
# - Find out whether you can trust a probability, and what the network looks at: `understand.ipynb`.
