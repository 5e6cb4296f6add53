//! The heavy steps of the CPU device, each as a model of one operator at a shape of the zoo, on one core.
//!
//! What is measured is a launch of one lane and one item, with its hand-over to a worker and back; throughput is in floating-point operations
//! as the plan counts them (criterion calls them elements).

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use tessera_core::{LaunchId, PartitionId, PlanKey, Precision, ProgramId};
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, Lane, LaneRequest, Launch, Room, Slot};
use tessera_planner::class::load_bytes;
use tessera_planner::graph::ParamId;
use tessera_planner::infer::DimValue;
use tessera_planner::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto, type_proto,
};
use tessera_planner::{SlotLayout, pack, plan};

/// A model of a few operators.
struct Sketch {
    name: &'static str,
    /// The shape of each input, after the axis that counts items.
    inputs: Vec<Vec<i64>>,
    weights: Vec<Vec<i64>>,
    nodes: Vec<NodeProto>,
}

fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        input: inputs.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        attribute,
        ..NodeProto::default()
    }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    let (name, r#type) = (Some(name.into()), Some(AttributeType::Ints as i32));
    AttributeProto { name, r#type, ints: ints.to_vec(), ..AttributeProto::default() }
}

fn int(name: &str, i: i64) -> AttributeProto {
    let (name, r#type) = (Some(name.into()), Some(AttributeType::Int as i32));
    AttributeProto { name, r#type, i: Some(i), ..AttributeProto::default() }
}

fn conv(name: &'static str, input: [i64; 3], out: i64, side: i64, group: i64) -> Sketch {
    let pads = [side / 2; 4];
    let attributes = vec![ints("pads", &pads), int("group", group)];
    Sketch {
        name,
        inputs: vec![input.to_vec()],
        weights: vec![vec![out, input[0] / group, side, side], vec![out]],
        nodes: vec![node("Conv", &["x0", "w0", "w1"], "c", attributes), node("Relu", &["c"], "y", vec![])],
    }
}

fn sketches() -> Vec<Sketch> {
    let one = |name, input: &[i64], weights: &[&[i64]], node: NodeProto| Sketch {
        name,
        inputs: vec![input.to_vec()],
        weights: weights.iter().map(|dims| dims.to_vec()).collect(),
        nodes: vec![node],
    };
    let heads = vec![12, 128, 64];
    vec![
        one("gemm 32×768×3072", &[32, 768], &[&[768, 3072]], node("MatMul", &["x0", "w0"], "y", vec![])),
        conv("conv 1×1 64→256, 56²", [64, 56, 56], 256, 1, 1),
        conv("conv 3×3 64→64, 56²", [64, 56, 56], 64, 3, 1),
        conv("depthwise 3×3 of 96, 112²", [96, 112, 112], 96, 3, 96),
        Sketch {
            name: "attention of 12 heads, 128 tokens",
            inputs: vec![heads.clone(), vec![12, 64, 128], heads],
            weights: vec![],
            nodes: vec![
                node("MatMul", &["x0", "x1"], "s", vec![]),
                node("Softmax", &["s"], "p", vec![int("axis", -1)]),
                node("MatMul", &["p", "x2"], "y", vec![]),
            ],
        },
        Sketch {
            name: "lstm of 512, 32 steps",
            inputs: vec![vec![32, 512]],
            weights: vec![vec![1, 2048, 512], vec![1, 2048, 512], vec![1, 4096]],
            nodes: vec![
                node("Transpose", &["x0"], "t", vec![ints("perm", &[1, 0, 2])]),
                node("LSTM", &["t", "w0", "w1", "w2"], "s", vec![int("hidden_size", 512)]),
                // Items come first in what a network answers.
                node("Transpose", &["s"], "y", vec![ints("perm", &[2, 0, 1, 3])]),
            ],
        },
        one(
            "layer norm 128×768",
            &[128, 768],
            &[&[768], &[768]],
            node("LayerNormalization", &["x0", "w0", "w1"], "y", vec![int("axis", -1)]),
        ),
        one("softmax 12×128×128", &[12, 128, 128], &[], node("Softmax", &["x0"], "y", vec![int("axis", -1)])),
        Sketch {
            name: "elementwise 256×56×56",
            inputs: vec![vec![256, 56, 56]; 2],
            weights: vec![],
            nodes: vec![node("Add", &["x0", "x1"], "s", vec![]), node("Relu", &["s"], "y", vec![])],
        },
    ]
}

impl Sketch {
    fn model(&self) -> ModelProto {
        use tensor_shape_proto::{Dimension, dimension::Value};
        let input = |(index, dims): (usize, &Vec<i64>)| {
            let sizes = dims.iter().map(|&size| Value::DimValue(size));
            let values = std::iter::once(Value::DimParam("batch".into())).chain(sizes);
            let dim = values.map(|value| Dimension { value: Some(value), denotation: None }).collect();
            let tensor = type_proto::Tensor { elem_type: Some(1), shape: Some(TensorShapeProto { dim }) };
            let value = Some(type_proto::Value::TensorType(tensor));
            let r#type = Some(TypeProto { value, denotation: None });
            ValueInfoProto { name: Some(format!("x{index}")), r#type, ..ValueInfoProto::default() }
        };
        let weight = |(index, dims): (usize, &Vec<i64>)| {
            let count = dims.iter().product::<i64>();
            // Small, and unlike each other.
            let elements = (0..count).flat_map(|at| (((at * 37 % 101) as f32 - 50.0) * 1e-3).to_le_bytes());
            TensorProto {
                name: Some(format!("w{index}")),
                dims: dims.clone(),
                data_type: Some(1),
                raw_data: Some(elements.collect::<Vec<u8>>().into()),
                ..TensorProto::default()
            }
        };
        let graph = GraphProto {
            input: self.inputs.iter().enumerate().map(input).collect(),
            initializer: self.weights.iter().enumerate().map(weight).collect(),
            node: self.nodes.clone(),
            output: vec![ValueInfoProto { name: Some("y".into()), ..ValueInfoProto::default() }],
            ..GraphProto::default()
        };
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
            graph: Some(graph),
            ..ModelProto::default()
        }
    }
}

/// A sketch on the device, and what is asked of it.
struct Ready {
    program: ProgramId,
    slot: Slot,
    request: LaneRequest,
    flops: u64,
}

fn ready(device: &CpuDevice, sketch: &Sketch) -> Ready {
    let model = load_bytes(sketch.model().encode_to_vec(), None).expect("a sketch is a model");
    let class = &model.class;
    let target = device.pack_target(Precision::Fp32).expect("every device knows fp32");
    let layout = Arc::new(SlotLayout::of(class.folded(), target).expect("a slot fits memory"));
    let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
    let packed = pack::pack(&class.graph, class.folded(), &layout, &mut source).expect("weights are there");
    let slot = device.upload(class.id, &layout, packed).expect("there is memory");
    let key = PlanKey { class: class.id, dims: [].into(), precision: Precision::Fp32 };
    let plan = Arc::new(plan(key, class.folded(), &layout, &[DimValue::Items]).expect("a sketch has a plan"));
    let program = device.compile(&plan, &layout, Room { lanes: 1, items: 1 }, PartitionId(0));
    let input =
        |bytes: usize| (0..bytes / 4).flat_map(|at| ((at % 97) as f32 * 0.01 - 0.5).to_le_bytes()).collect();
    let inputs = plan.inputs.iter().map(|port| input(port.bytes_per_item())).collect();
    Ready {
        program: program.expect("the CPU has every kernel"),
        slot,
        request: LaneRequest { items: 1, inputs },
        flops: plan.flops_per_item(),
    }
}

fn launch(device: &CpuDevice, woken: &Receiver<()>, ready: &Ready) {
    let lane = Lane { slot: ready.slot.clone(), requests: vec![ready.request.clone()] };
    let launch = Launch { id: LaunchId(0), program: ready.program, lanes: vec![lane], urgent: false };
    device.submit(launch).expect("the launch fits");
    while device.poll().is_empty() {
        woken.recv().expect("the device lives");
    }
}

fn steps(criterion: &mut Criterion) {
    let (wake, woken) = channel();
    let options = CpuOptions { cores: Cores::These(vec![0]), partitions: None, memory_limit: None };
    let wake = Arc::new(move || _ = wake.send(()));
    let device = CpuDevice::open(&options, wake).expect("there is a core");
    let mut group = criterion.benchmark_group("steps");
    for sketch in sketches() {
        let ready = ready(&device, &sketch);
        group.throughput(Throughput::Elements(ready.flops));
        group.bench_function(BenchmarkId::from_parameter(sketch.name), |bencher| {
            bencher.iter(|| launch(&device, &woken, &ready));
        });
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
