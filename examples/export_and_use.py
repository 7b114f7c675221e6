"""Export a trained model, and use the file as another program would: without Onsight, Keras or TensorFlow.

    python examples/export_and_use.py

On digits: 99.2 % of 264 (95 %: 97.3 to 99.8) by `onsight evaluate`, about 1 min; the file answers as Keras does.
"""

import json

import numpy as np
from ai_edge_litert.interpreter import Interpreter

import onsight


def train_and_export():
    """Return the folder with the file, its labels and test vectors. A file that differs from Keras is not written."""
    run = onsight.train(onsight.TrainSpec(data="digits", preset="quick"))
    onsight.export(run, ["litert"])
    return run.folder / "export"


def answer(folder, images):
    """Return (n, classes) probabilities of (n, H, W, 3) uint8 images: all that another program has to do."""
    interpreter = Interpreter(str(folder / "model.tflite"))
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(entry["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(result["index"])


if __name__ == "__main__":
    folder = train_and_export()
    labels = json.loads((folder / "labels.json").read_text("utf-8"))
    found = answer(folder, np.load(folder / "vectors" / "pictures.npy"))
    print("the first test vectors show:", *(labels[each] for each in found[:10].argmax(axis=1)))
    print("difference from Keras:", np.abs(found - np.load(folder / "vectors" / "probabilities.npy")).max())
