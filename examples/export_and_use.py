"""Export a trained model and use the file as another program would: without Onsight, Keras or TensorFlow.

    python examples/export_and_use.py

Expect on digits: 99.2 % of 264 test images correct (95 % interval: 97.3 to 99.8; by `onsight evaluate`), the same
answers from the file as from Keras, and about 1 min.
"""

import json

import numpy as np
from ai_edge_litert.interpreter import Interpreter

import onsight


def train_and_export():
    """Return the folder with the file, labels and test vectors. Export writes no file that differs from Keras."""
    run = onsight.train(onsight.TrainSpec(data="digits", preset="quick"))
    onsight.export(run, ["litert"])
    return run.folder / "export"


def answer(folder, images):
    """Return (n, classes) probabilities of (n, H, W, 3) uint8 images. Another program needs only this code."""
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
    print("classes of the first test vectors:", *(labels[each] for each in found[:10].argmax(axis=1)))
    print("largest difference from Keras:", np.abs(found - np.load(folder / "vectors" / "probabilities.npy")).max())
