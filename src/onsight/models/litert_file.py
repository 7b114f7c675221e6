"""Conversion of a Keras model to a .tflite file, by TensorFlow or JAX.

The file uses only built-in operations and takes batches of any size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from onsight.core.errors import ExportError
from onsight.core.files import is_disk_full
from onsight.core.silence import without_logs
from onsight.models.fold_batch_norm import fold_batch_norms

if TYPE_CHECKING:
    import keras


BATCH = 7919  # the batch size while converting; `free_batch` replaces it. It is a prime, and no usual size of a network


def convert(model: keras.Model, outputs: Sequence[str] = ("probabilities",)) -> bytes:
    """Return the .tflite file of a model with its batch norms folded.

    It maps uint8 (batch, H, W, 3), the input `image`, to the model's float32 outputs.

    Args:
        model: a model with one input, and one output or a list of them.
        outputs: the names of the outputs in the file.

    Raises:
        ExportError: the backend is JAX and litert-converter is not installed, or the converter failed.
    """
    import keras

    folded = fold_batch_norms(model)
    with without_logs(), failures_named("LiteRT"):
        made = from_tensorflow(folded) if keras.config.backend() == "tensorflow" else from_jax(folded, outputs)
        return free_batch(made, outputs)


def from_tensorflow(model: keras.Model) -> bytes:
    """Return the .tflite file that TensorFlow's converter makes.

    The batch size is fixed while converting and freed in the file afterwards. With an unknown batch size, a flatten
    would become four operations that no quantizer supports.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = [tf.TensorSpec((BATCH, *model.input_shape[1:]), tf.uint8, name="image")]
    function = tf.function(lambda image: model(image, training=False), input_signature=signature)
    # If the function still had variables, the converter would silently write a file that answers NaN.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], trackable_obj=tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return bytes(converter.convert())


def from_jax(model: keras.Model, outputs: Sequence[str]) -> bytes:
    """Return the .tflite file that litert-converter makes from StableHLO.

    Its version is pinned, because its Python API is private. The batch size is fixed while converting: with an unknown
    one, the file would recompute every shape and fuse nothing, and run ten times slower.
    """
    if not find_spec("litert_converter"):
        raise ExportError(
            "With JAX, a .tflite file needs litert-converter. Install: pip install --no-deps litert-converter==0.5.0"
        )
    import jax
    from litert_converter import converter_api_ext as api
    from litert_converter.mlir import ir, passmanager

    image = jax.ShapeDtypeStruct((BATCH, *model.input_shape[1:]), np.uint8)
    traced = jax.export.export(jax.jit(lambda image: model(image, training=False)))(image)
    context = ir.Context()
    api.prepare_mlir_context(context)
    with context, ir.Location.unknown(context):
        module = ir.Module.parse(traced.mlir_module())
        settings = api.ConvertToTFLConfig()
        settings.model_origin_framework = "JAX"
        api.set_signature(module.operation, "serving_default", ["image"], list(outputs))
        api.run_convert_to_tfl_passes(module, passmanager.PassManager(), settings)
        return bytes(api.export_flatbuffer_to_bytes(module.operation))


def free_batch(content: bytes, outputs: Sequence[str]) -> bytes:
    """Return a .tflite file of batch size BATCH changed to take any batch size, with its outputs named.

    The shapes of all values follow from the shape of the input, except that a reshape has its own shape as a constant.
    Constants keep their sizes, whatever these are.

    Raises:
        ExportError: the file has several graphs.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = parse(content)
    graph = only_graph(model)
    for index in {*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)}:
        tensor = graph.tensors[index]
        if len(tensor.shape) and tensor.shape[0] % BATCH == 0:
            tensor.shapeSignature = [-1, *tensor.shape[1:]]
            tensor.shape = [1, *tensor.shape[1:]]
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.RESHAPE:
            operator.builtinOptions = None
            buffer = model.buffers[graph.tensors[operator.inputs[1]].buffer]
            shape = np.frombuffer(bytes(buffer.data), "<i4").copy()
            if shape[0] % BATCH == 0:
                shape[0] = -1
                buffer.data = np.frombuffer(shape.tobytes(), np.uint8)
    # TensorFlow's names count the conversions of the process, so the same model would give other bytes each time.
    for index, tensor in enumerate(graph.tensors):
        tensor.name = f"value{index}"
    if len(outputs) > 1:  # the converters reorder them; TensorFlow's calls them output_0, output_1, …
        found = {each.name.decode(): each.tensorIndex for each in model.signatureDefs[0].outputs}
        graph.outputs = [
            found[name] if name in found else found[f"output_{number}"] for number, name in enumerate(outputs)
        ]
    signature = schema.SignatureDefT(signatureKey="serving_default", inputs=[], outputs=[])
    for values, index, name in (
        (signature.inputs, graph.inputs[0], "image"),
        *((signature.outputs, index, name) for index, name in zip(graph.outputs, outputs, strict=True)),
    ):
        graph.tensors[index].name = name
        values.append(schema.TensorMapT(name=name, tensorIndex=index))
    model.signatureDefs = [signature]
    return pack(model)


def below_head(content: bytes, classes: int) -> tuple[bytes, int]:
    """Return the .tflite file of a classifier cut off below its head, and the number of features that it then returns.

    The head is the last dense layer before the first output. Its inputs become the only output.

    Raises:
        ExportError: there is no such layer, or it does not take one vector per image.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = parse(content)
    graph = only_graph(model)
    makers = {int(index): place for place, each in enumerate(graph.operators) for index in each.outputs}
    value, head = int(graph.outputs[0]), None
    while head is None and value in makers:
        operator = graph.operators[makers[value]]
        computed = [int(index) for index in operator.inputs if int(index) in makers]
        if len(computed) != 1:  # temperature and softmax have one input that is no constant
            break
        value = computed[0]
        if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.FULLY_CONNECTED:
            head = operator
    width = int(graph.tensors[value].shape[-1])
    kernel = [] if head is None else [int(side) for side in graph.tensors[head.inputs[1]].shape]
    if kernel != [classes, width] or len(graph.tensors[value].shape) != 2:
        raise ExportError("The .tflite file has no dense layer from features to classes where one was expected.")
    graph.operators = graph.operators[: makers[value] + 1]
    graph.outputs = [value]
    name = graph.tensors[value].name
    model.signatureDefs[0].outputs = [schema.TensorMapT(name=name, tensorIndex=value)]
    return pack(model), width


def fix_batch(content: bytes) -> bytes:
    """Return a .tflite file of any batch size changed to take a single image, because LiteRT.js takes nothing else."""
    model = parse(content)
    for tensor in only_graph(model).tensors:
        tensor.shapeSignature = None
    return pack(model)


def parse(content: bytes) -> Any:
    """Return a .tflite file as an object that can be changed.

    The quantizer writes constants behind the flatbuffer. They are brought into the object, because their positions are
    wrong as soon as the flatbuffer has another length.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # 0 and 1 mean that the buffer lies in the flatbuffer
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def pack(model: Any, builder: Any = None) -> bytes:
    """Return the bytes of what `parse` returned; `builder` is a flatbuffers.Builder, by default a new one."""
    import flatbuffers

    builder = builder or flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def only_graph(model: Any) -> Any:
    """Return the graph of what `parse` returned.

    Raises:
        ExportError: there are several, as of a loop. Each depends on the others, so none is changed.
    """
    if len(model.subgraphs) != 1:
        raise ExportError(
            f"The .tflite file has {len(model.subgraphs)} graphs, and only a file of one graph can be changed: the "
            "network must have no loop and no condition."
        )
    return model.subgraphs[0]


@contextmanager
def failures_named(format_: str) -> Iterator[None]:
    """Turn any exception of a converter into an ExportError that names the converter's format.

    Converters raise nearly every type of exception. A full disk is not their failure.
    """
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_disk_full(error):
            raise
        what = " ".join(str(error).split())[:300]
        raise ExportError(f"The converter to {format_} failed: {type(error).__name__}: {what}") from error
