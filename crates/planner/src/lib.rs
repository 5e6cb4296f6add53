//! ONNX in; class, plans and packed weights out; and the reference that defines every operator.
