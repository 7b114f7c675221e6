"""Sections of the README beside its Python code: exported files in phones, servers and microcontrollers."""

from __future__ import annotations

import json
import shlex

from onsight.core.records import ExportRow
from onsight.models.model_file import ModelDescription

LITERT = """\
ML Kit and MediaPipe Tasks take the file as it is: it holds its labels and describes its input. They scale images in
their own way, so give them a square image (`square`) that was made as described above. On Android, with
`com.google.mediapipe:tasks-vision` and the file in `src/main/assets`:

```kotlin
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.vision.imageclassifier.ImageClassifier

val classifier = ImageClassifier.createFromFile(context, "{file}")
val result = classifier.classify(BitmapImageBuilder(square).build())
val best = result.classificationResult().classifications()[0].categories()[0]
println("${{best.categoryName()}} ${{best.score()}}")
```

On iOS, with the pod `MediaPipeTasksVision` and the file in the bundle:

```swift
import MediaPipeTasksVision

let path = Bundle.main.path(forResource: "{stem}", ofType: "tflite")!
let classifier = try ImageClassifier(modelPath: path)
let result = try classifier.classify(image: MPImage(uiImage: square))
let best = result.classificationResult.classifications[0].categories[0]
print(best.categoryName ?? "", best.score)
```
"""
LITERT_DISTANCE = "The second of `classifications` is the output `distance`; its only score is the distance.\n"
ONNX = """\
The file's metadata holds the labels, the geometry and the thresholds. For Triton Inference Server:

```sh
mkdir -p models/{name}/1 && cp {file} models/{name}/1/model.onnx
```

Write this to `models/{name}/config.pbtxt`, then start `tritonserver --model-repository "$PWD/models"`:

```pbtxt
{config}```
"""
SAVED_MODEL = """\
For TensorFlow Serving, whose models have a folder per version:

```sh
mkdir -p models/{name} && cp -r {file} models/{name}/1
```

```sh
docker run -p 8501:8501 -v "$PWD"/models/{name}:/models/{name} -e MODEL_NAME={name} tensorflow/serving
```

It answers `POST /v1/models/{name}:predict` with the body `{{"instances": [IMAGE, …]}}`, where an image is
{size} rows of {size} pixels of 3 numbers.
"""
MICROCONTROLLER = """\
For a microcontroller, take the folder `{file}` into your project, beside TensorFlow Lite Micro. `classifier.h` says
how to call it, and `classifier.ino` is a sketch for Arduino and ESP32. `main.cc` is a program for your computer: it
reads images of uint8 RGB from standard input and prints an answer per line. `kArenaSize` in `model.h` is the memory
that the model needs beside its own bytes. It was measured on a 64-bit computer with the reference kernels: 32-bit
pointers need less, optimized kernels may need more.
"""
COREML = """\
Drag the package into Xcode. On iOS and macOS, with an upright `image` of the class CGImage:

```swift
import CoreML
import Vision

let url = Bundle.main.url(forResource: "model", withExtension: "mlmodelc")!
let model = try VNCoreMLModel(for: MLModel(contentsOf: url))
let request = VNCoreMLRequest(model: model)
request.imageCropAndScaleOption = .{scaling}
try VNImageRequestHandler(cgImage: image).perform([request])
let best = (request.results as! [VNClassificationObservation])[0]
print(best.identifier, best.confidence)
```

Vision scales the image in its own way{border}. For the same answers as `onsight predict`, give it an image that was
made as described above.
"""
UNPROVEN = """\
**Not proven here**: this file was written on a system that cannot run it, so its answers were never compared with those
of Keras. `onsight export RUN {format}` on macOS compares them.

"""
SECTIONS = {"coreml": COREML, "litert": LITERT, "onnx": ONNX, "saved_model": SAVED_MODEL, "c": MICROCONTROLLER}


def usage(run_name: str, description: ModelDescription, row: ExportRow) -> str:
    """Return how to use an exported file where there is no Python; empty if nothing is to be said about its format."""
    format_ = row["format"]
    text = (UNPROVEN if row["max_difference"] is None else "") + SECTIONS.get(format_, "")
    text = text.format(
        format=format_,
        scaling="scaleFit" if description.fit == "pad" else "centerCrop",
        border=" and adds black, not grey" if description.fit == "pad" else "",
        name=shlex.quote(run_name),
        file=row["file"],
        stem=row["file"].partition(".")[0],
        size=description.image_size,
        config=triton_config(run_name, description),
    )
    return text + (LITERT_DISTANCE if format_ == "litert" and description.prototypes else "")


def triton_config(run_name: str, description: ModelDescription) -> str:
    """Return config.pbtxt for the ONNX file of a model."""
    size, outputs = description.image_size, [("probabilities", f"[{len(description.classes)}]")]
    if description.prototypes:  # one number per image: Triton counts an axis that the file does not have
        outputs.append(("distance", "[1], reshape { shape: [] }"))
    return "\n".join([
        f"name: {json.dumps(run_name, ensure_ascii=False)}",
        'backend: "onnxruntime"',
        "max_batch_size: 32",
        f'input [{{ name: "image", data_type: TYPE_UINT8, dims: [{size}, {size}, 3] }}]',
        *(f'output [{{ name: "{name}", data_type: TYPE_FP32, dims: {shape} }}]' for name, shape in outputs),
        "dynamic_batching {}",
        "",
    ])  # fmt: skip
