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
# From images to a model that says what is on them, step by step: look at the data, train a plain network and a
# convolutional one, read their curves, find out what they confuse, ask them about an image of your own, and keep the
# result. Each step says *why* it is there, because the code is the short part.
#
# You need no earlier experience with neural networks, only some Python. Run the cells from top to bottom.

# %%
# Installs Onsight where it is missing, as on Colab, and does nothing elsewhere. Before its first release, upload a
# wheel (`pip wheel --no-deps .` makes one) and name that file instead.
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
# All that you may want to change is in the next cell. `cifar10` is a download; where it cannot be had, the notebook
# takes `digits`, small scans of handwritten digits that come with scikit-learn. More epochs (an epoch is one pass over
# the training images) make a better model and take longer.

# %% tags=["parameters"]
DATA = "cifar10"
ANN_EPOCHS = 6
CNN_EPOCHS = 6
MY_PICTURES = []  # paths of images of your own, such as ["cat.jpg", "my cat 2.png"]

# %% [markdown]
# ## 1. Look at the data
#
# The most useful minutes of a project are those in which you look at images. A model can only learn what is in them,
# and it learns *everything* that is in them: wrong labels, and short cuts such as a blue background that always means
# "ship".

# %%
try:
    data = onsight.load_dataset(DATA)
except onsight.DataError as error:
    print(f"{error}\n\nTaking digits instead.")
    data = onsight.load_dataset("digits")
data

# %% [markdown]
# CIFAR-10 has ten classes of small colour photos. They are so small because in 2009 computers were; a cat of 32 by 32
# pixels still looks like a cat, and a network can be trained on them without a graphics card.

# %%
some = np.random.default_rng(0).permutation(len(data))[:24]
onsight.plots.sample_images(data.images[some], [data.classes[label] for label in data.labels[some]])

# %% [markdown]
# To the computer an image is a block of numbers: height, width, and three channels for red, green and blue, each from
# 0 to 255. Here is the upper left corner of one image's red channel.

# %%
print("images, height, width, channels:", data.images.shape)
data.images[0, :6, :8, 0]

# %% [markdown]
# Many tutorials divide by 255 first. You could forget to do the same later, for your own image, and would get
# nonsense without any error. So in Onsight the division is the first layer of every model, and what you hand over is
# always the image as it is.

# %% [markdown]
# ## 2. Labels are numbers, and why one-hot
#
# The label of an image is the number of its class.

# %%
for index in some[:3].tolist():
    print(f"label {data.labels[index]} means {data.classes[data.labels[index]]}")

# %% [markdown]
# A network cannot answer "3": that would say that class 3 lies between 2 and 4, and that a cat is nearly a bird. It
# gives one number for *each* class instead, a probability. To compare that with the truth, the truth is written in the
# same form: 1 for the right class, 0 for all others. This is the *one-hot* label.

# %%
one_hot = np.eye(len(data.classes), dtype=int)[data.labels[some[:3]]]
one_hot

# %% [markdown]
# The *loss* says how wrong a probability vector $p$ is: $-\sum_i y_i \log p_i$ with the one-hot label $y$. All terms
# but one are zero, so it is simply $-\log$ of the probability that the right class got. Saying 1 % for the truth costs
# far more than saying 50 %, and that is what makes a network careful.

# %%
for probability in (0.01, 0.1, 0.5, 0.9, 0.99):
    print(f"the truth gets {probability:4.0%}  ->  loss {-np.log(probability):.2f}")
print(f"guessing evenly among {len(data.classes)} classes  ->  loss {np.log(len(data.classes)):.2f}")

# %% [markdown]
# Because only that one term counts, libraries take the plain number and save the memory of the one-hot table. So does
# Onsight, and you never write it yourself.

# %% [markdown]
# ## 3. A baseline: the plain network (ANN)
#
# Before anything clever, train something simple. Its accuracy is what a better idea has to beat, and if the clever
# model is no better, you have learned something too.
#
# The baseline throws the image's numbers into one long row and lets two dense layers work on it: every number is
# connected with every neuron. It has no idea that neighbouring pixels belong together.
#
# While it trains, the output below shows it live. The images are divided into three parts first:
#
# - **training**: what the network learns from.
# - **validation**: held back. It shows during training whether what was learned holds for other images, and it is
#   what choices such as "when to stop" are made by.
# - **test**: held back from *you* too, until the end. Whoever looks at the test result and then changes something, has
#   chosen by luck.

# %%
ann = onsight.train(
    onsight.TrainSpec(data=data.name, preset="tutorial", model="mlp", augmentation="none", epochs=ANN_EPOCHS)
)

# %% [markdown]
# Open "What was chosen, and why" above: each choice that you did not make was made for you, with its reason. The preset
# `tutorial` stands for what most courses teach: the Adam optimizer, a learning rate that is lowered when the validation
# loss stalls, and early stopping. Only its *augmentation* is left out here: small random changes of the training
# images, which the next network gets.

# %% [markdown]
# ## 4. The convolutional network (CNN)
#
# A convolution looks at a small window of the image, and moves the *same* small set of weights over all places. Two
# ideas are in it. What belongs together lies together; and an ear is an ear, wherever in the image it is. So it needs
# fewer weights, and what it learns in one corner it knows in all of them. Pooling layers in between make the image
# smaller, so that later windows see more of it: first edges, then parts, then things.

# %%
cnn = onsight.train(onsight.TrainSpec(data=data.name, preset="tutorial", model="cnn", epochs=CNN_EPOCHS))

# %% [markdown]
# These are its layers. Follow the shapes: the image becomes smaller and gains channels, until a dense layer turns
# what is left into one number for each class. The last column counts the parameters, the numbers that are learned.
# Compare their sum with that of the ANN: its shared weights make the CNN much the smaller of the two.

# %%
print(f"the ANN has {ann.load_model().count_params():,} parameters")
cnn.load_model().summary()

# %% [markdown]
# ## 5. Read the curves
#
# Two lines tell most of the story. Both rise: it is still learning, and more epochs would help. Training goes on rising
# while validation stays or falls: it begins to learn its training images by heart, which is called *over-fitting*.
# Validation may lie above training here, because half of the training images are turned and zoomed a little at random
# (and each mirrored in every other epoch, unless that would change its meaning). That makes them harder, and hardly an
# image is seen twice alike, which delays over-fitting.

# %%
onsight.plots.curves(cnn.history())

# %% [markdown]
# ## 6. The test
#
# Now, once, the images that neither the network nor you have seen. The figure comes with an interval: other test
# images would have given another figure, and with few images quite another one. So a model that is ahead by less
# than the interval's width may be ahead by luck alone.

# %%
test_of_ann = onsight.evaluate(ann)
test_of_ann

# %%
test_of_cnn = onsight.evaluate(cnn)
test_of_cnn

# %% [markdown]
# That table is the *per-class report*. Three words in it need care:
#
# - **recognised** (recall): of all cats, how many did it call a cat?
# - **precision**: of all that it called a cat, how many were cats?
# - **F1**: one number of both, high only where both are.
#
# A model that calls everything a cat recognises every cat, with a miserable precision. So look at both. Is the CNN
# really better, or was that luck? Both have seen the same images, so only those count that one of the two alone has
# right.

# %%
onsight.compare([ann, cnn])

# %% [markdown]
# ## 7. What does it confuse?
#
# The confusion matrix has a row for each true class and a column for each answer. The diagonal is right; everything
# else is a kind of mistake, and says far more than the accuracy. Classes that look alike are confused most, in both
# directions. That is a sign of health: a network that took frogs for trucks would be using a short cut.

# %%
onsight.plots.confusion_matrix(test_of_cnn.metrics["confusion"], cnn.classes)

# %% [markdown]
# And the mistakes themselves: those that it was *surest* of. Look at each one. Some are hard, some are the network's
# fault, and now and then the label is wrong.

# %%
test = test_of_cnn.predictions
wrong = np.flatnonzero(test.probabilities.argmax(axis=1) != test.labels)
surest = wrong[np.argsort(-test.probabilities[wrong].max(axis=1))][:8]
place = {name: index for index, name in enumerate(data.names)}
images = data.images[[place[test.names[i]] for i in surest]]
truth = [test.classes[test.labels[i]] for i in surest]
onsight.plots.predictions(images, truth, test.probabilities[surest], test.classes) if len(
    surest
) else "No mistakes at all."

# %% [markdown]
# ## 8. Your own image
#
# Put the path of a photo into `MY_PICTURES` in the settings (on Colab, upload it first with the folder symbol on the
# left). Any size and format will do: the centre square is cut out and scaled. Until you do, two test images stand in.
#
# The network must choose among its classes. Show it your breakfast, and it will still say "ship" or "dog", sometimes
# with a high probability. `understand.ipynb` shows what can be done about that.

# %%
if not MY_PICTURES:
    for number, name in enumerate(test.names[:2], start=1):
        Image.fromarray(data.images[place[name]]).save(f"image-{number}.png")
    MY_PICTURES = ["image-1.png", "image-2.png"]
onsight.predict(cnn, MY_PICTURES)

# %% [markdown]
# ## 9. Keep it
#
# Nothing has to be saved: it has been all along. A *run* is one folder with the model, every choice and why it was
# made, the history, the evaluation, and a report. Move it, zip it, mail it. Training that was cut off goes on from
# there with `onsight.resume`.

# %%
print(cnn.folder, *sorted(path.name for path in cnn.folder.iterdir()), sep="\n  ")

# %% [markdown]
# Another day, in another notebook, open it by its folder and ask again. The answers are the same to the last digit.

# %%
again = onsight.open_run(cnn.folder)
before, after = onsight.predict(cnn, MY_PICTURES), onsight.predict(again, MY_PICTURES)
print("the same answers:", [each.top for each in before] == [each.top for each in after])
again

# %% [markdown]
# `report.html` in that folder is the whole story on one page: open it in a browser, click into the confusion matrix,
# and see where the network looked when it was wrong.
#
# **Where to go from here.** More epochs: the curves say whether they would help. Other networks: `onsight models` in a
# terminal lists them. Your own photos: `your_own_photos.ipynb`. Whether a probability can be believed, and what the
# network looked at: `understand.ipynb`.
