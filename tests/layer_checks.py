"""The contract that every layer must fulfil, and helpers that the tests of layers share."""

import doctest
import inspect

import keras
import numpy as np
from keras import ops


def check_layer(make, input_shapes, output_shape, tmp_path, *, scale=1.0, has_own_signature=True):
    """Asserts everything that this package requires of a layer.

    Args:
        make: Function of the keyword arguments `name` and `dtype` that returns a new layer.
        input_shapes: List of shapes `(batch, height, width, channels)`, one for each input.
        output_shape: Expected shape of the output.
        tmp_path: Folder for the saved model.
        scale: Standard deviation of the random inputs.
        has_own_signature: Whether the layer names its arguments itself. If not, they are those of
            the Keras layer that it extends.
    """
    check_shapes(make, input_shapes, output_shape, scale)
    if has_own_signature:
        check_config_is_signature(make)
    check_variable_paths(make, input_shapes)
    check_unknown_sizes(make, input_shapes, scale)
    check_round_trip(make, input_shapes, tmp_path, scale)
    check_fit_step(make, input_shapes, scale)
    check_bfloat16(make, input_shapes, scale)


def check_shapes(make, input_shapes, output_shape, scale):
    """Outputs have the computed shape: at this size, at an odd size and at one pixel."""
    assert tuple(make().compute_output_shape(_one_or_list(input_shapes))) == output_shape
    for shapes in (input_shapes, _resized(input_shapes, 3, 2), _resized(input_shapes, None, None)):
        layer = make()
        outputs = call(layer, _one_or_list(random_inputs(shapes, scale)))
        assert layer.built
        assert tuple(outputs.shape) == tuple(layer.compute_output_shape(_one_or_list(shapes)))
        assert np.all(np.isfinite(to_numpy(outputs)))
        symbolic = make()(_one_or_list([keras.Input(batch_shape=shape) for shape in shapes]))
        assert tuple(symbolic.shape) == tuple(outputs.shape)


def check_config_is_signature(make):
    """The config contains exactly the arguments of the constructor."""
    layer = make()
    inherited = inspect.signature(keras.layers.Layer.__init__).parameters
    parameters = inspect.signature(type(layer).__init__).parameters.values()
    named = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - set(inherited)
    base_config = set(keras.layers.Layer().get_config())
    assert set(layer.get_config()) - base_config == named
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][2:]
    # As in Keras, the kernel size of a convolution may follow its filters.
    assert set(positional) <= {"kernel_size", "channels"}, "keyword-only after the first argument"
    rebuilt = type(layer).from_config(layer.get_config())
    assert rebuilt.get_config() == layer.get_config()


def check_variable_paths(make, input_shapes):
    """Variable paths are unique, and do not depend on which layers were created before."""
    paths = []
    for _ in range(2):
        layer = make(name="checked")
        layer.build(_one_or_list(input_shapes))
        paths.append([variable.path for variable in layer.variables])
    assert paths[0] == paths[1]
    assert len(set(paths[0])) == len(paths[0])


def check_unknown_sizes(make, input_shapes, scale):
    """A graph of unknown height and width gives the same results as at known sizes."""
    if keras.config.backend() != "tensorflow":
        return  # Only TensorFlow has such graphs; `check_shapes` covers the sizes.
    inputs = [keras.Input((None, None, shape[-1])) for shape in input_shapes]
    layer = make()
    model = _without_known_shapes(keras.Model(inputs, layer(_one_or_list(inputs))))
    for shapes in (input_shapes, _resized(input_shapes, 3, 2), _resized(input_shapes, None, None)):
        values = _one_or_list(random_inputs(shapes, scale))
        expected = to_numpy(layer(values))
        np.testing.assert_allclose(to_numpy(model(values)), expected, rtol=1e-4, atol=1e-4)


def check_round_trip(make, input_shapes, tmp_path, scale):
    """A saved model loads without `custom_objects` and gives the same results."""
    inputs = [keras.Input((None, None, shape[-1])) for shape in input_shapes]
    model = keras.Model(inputs, make(name="checked")(_one_or_list(inputs)))
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    values = _one_or_list(random_inputs(input_shapes, scale))
    np.testing.assert_array_equal(to_numpy(call(loaded, values)), to_numpy(call(model, values)))
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]


def check_fit_step(make, input_shapes, scale):
    """One step of `fit` changes every weight of the layer, and those of a layer before it."""
    inputs = [keras.Input(shape[1:]) for shape in input_shapes]
    channels = input_shapes[0][-1]
    before = keras.layers.Conv2D(channels, 1, name="before")
    layer = make()
    outputs = layer(_one_or_list([before(inputs[0]), *inputs[1:]]))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    weights = [*before.trainable_variables, *layer.trainable_variables]
    old = [to_numpy(weight) for weight in weights]
    values = [to_numpy(value) for value in random_inputs(input_shapes, scale)]
    target = np.random.default_rng(1).normal(size=outputs.shape[1:]) * np.ones(
        (input_shapes[0][0], 1, 1, 1)
    )
    history = model.fit(_one_or_list(values), target, batch_size=len(target), verbose=0)
    assert np.isfinite(history.history["loss"][0])
    for weight, value in zip(weights, old, strict=True):
        assert np.all(np.isfinite(to_numpy(weight))), weight.path
        assert np.any(to_numpy(weight) != value), f"{weight.path} did not learn"


def check_bfloat16(make, input_shapes, scale):
    """Under mixed_bfloat16 outputs are bfloat16 and close, and weights are float32."""
    values = _one_or_list(random_inputs(input_shapes, scale))
    exact, mixed = make(), make(dtype="mixed_bfloat16")
    expected = to_numpy(call(exact, values))
    mixed.build(_one_or_list(input_shapes))
    mixed.set_weights(exact.get_weights())
    outputs = call(mixed, values)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert {v.dtype for v in mixed.trainable_variables} <= {"float32"}
    outputs = to_numpy(ops.cast(outputs, "float32"))
    np.testing.assert_allclose(outputs, expected, atol=0.05 * np.max(np.abs(expected)))


def run_docstring_example(layer_class):
    """Runs the example in the docstring of a class and asserts its output."""
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(layer_class, layer_class.__name__, globs={"keras": keras})
    assert example.examples, f"the docstring of {layer_class.__name__} has no example"
    report = []
    results = doctest.DocTestRunner().run(example, out=report.append)
    assert results.failed == 0, "".join(report)


def call(layer, values):
    """Returns the layer's output at inference, under JAX compiled as a whole, which is faster."""
    if keras.config.backend() != "jax":
        return layer(values)
    import jax

    if not layer.built:
        layer.build(jax.tree.map(lambda value: tuple(value.shape), values))
    return jax.jit(layer)(values)


def random_inputs(shapes, scale=1.0, seed=0):
    """Returns a list of normally distributed float32 tensors of these shapes."""
    random = np.random.default_rng(seed)
    return [ops.convert_to_tensor(scale * random.normal(size=shape), "float32") for shape in shapes]


def to_numpy(tensor):
    """Returns a tensor or variable as a NumPy array."""
    return np.array(ops.convert_to_numpy(tensor))


def trainable_count(layer):
    """Returns the number of trainable parameters of a layer or model."""
    return sum(int(np.prod(variable.shape)) for variable in layer.trainable_variables)


def value_and_gradients(function, *arrays):
    """Computes a function of tensors, and the gradients of `sum(sin(output))`.

    Args:
        function: Function of tensors that returns a list of tensors.
        *arrays: Float arrays, its inputs.

    Returns:
        Pair of the list of outputs and the list of gradients, one for each input, as arrays.
    """

    def loss(*tensors):
        return sum(ops.sum(ops.sin(output)) for output in function(*tensors))

    backend = keras.config.backend()
    tensors = [ops.convert_to_tensor(array) for array in arrays]
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = loss(*tensors)
        gradients = tape.gradient(total, tensors)
    elif backend == "jax":
        import jax

        gradients = jax.jit(jax.grad(loss, argnums=tuple(range(len(tensors)))))(*tensors)
        function = jax.jit(function)
    else:
        tensors = [tensor.detach().requires_grad_() for tensor in tensors]
        loss(*tensors).backward()
        gradients = [tensor.grad for tensor in tensors]
    outputs = function(*tensors)
    return [to_numpy(output) for output in outputs], [to_numpy(g) for g in gradients]


def _without_known_shapes(model):
    """Returns the model as a TensorFlow graph of unknown batch size, height and width."""
    import tensorflow as tf

    signature = [tf.TensorSpec([None, None, None, tensor.shape[-1]]) for tensor in model.inputs]
    return tf.function(model, input_signature=[_one_or_list(signature)], autograph=False)


def _resized(shapes, rows, columns):
    """Returns the shapes with more rows and columns, or with one of each if these are None."""
    if rows is None:
        return [(shape[0], 1, 1, shape[3]) for shape in shapes]
    return [(shape[0], shape[1] + rows, shape[2] + columns, shape[3]) for shape in shapes]


def _one_or_list(values):
    return values[0] if len(values) == 1 else list(values)
