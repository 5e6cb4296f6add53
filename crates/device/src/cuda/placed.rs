//! Where blocks run, as they say themselves: on a card, and skipped by name without one.

use super::fence::{Block, Compiler, Context, Function, Graph, Shape, Share, Stream};
use super::probe;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Marks the multiprocessor that each block runs on, and stays there for as long as it takes for all of them to have a block.
const SOURCE: &str = r#"
struct Params { unsigned long long seen; };
extern "C" __global__ void kernel(Params params) {
    unsigned here;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(here));
    const long long begun = clock64();
    while (clock64() - begun < 200000) {}
    reinterpret_cast<unsigned*>(params.seen)[here] = 1;
}
"#;

/// More than any card has multiprocessors, each a `u32`.
const PLACES: usize = 1024;

/// On how many multiprocessors a graph runs that was captured in a share, with more blocks than the card can hold.
fn multiprocessors_used(share: &Share, function: &Function) -> usize {
    let stream = Arc::new(Stream::of(share).unwrap());
    let seen = Block::new(&stream, PLACES * size_of::<u32>()).unwrap();
    stream.zero(seen.address(), PLACES * size_of::<u32>()).unwrap();
    let shape = Shape { grid: [2000, 1, 1], block: 1024, shared_bytes: 0, cluster: 1 };
    let launch = || function.launch_apart(&stream, &shape, &seen.address().to_le_bytes());
    let graph = Graph::capture(&stream, launch).unwrap();
    graph.launch(&stream).unwrap();
    let mut marks = vec![0; PLACES * size_of::<u32>()];
    stream.download(seen.address(), &mut marks).unwrap();
    marks.chunks_exact(size_of::<u32>()).filter(|mark| *mark != [0; 4]).count()
}

#[test]
fn blocks_of_a_share_run_on_as_many_multiprocessors_as_it_has_and_on_no_other() {
    match probe() {
        Ok(()) => {}
        Err(why) if std::env::var_os("TESSERA_REQUIRE_CUDA").is_none() => {
            eprintln!("skipped: {why}");
            return;
        }
        Err(why) => panic!("{why}"),
    }
    let context = Context::open(0).unwrap();
    let options = ["--gpu-architecture=sm_90".to_owned()];
    let compiled = Compiler::find().unwrap().compile("placed.cu", SOURCE, &[], &options).unwrap();
    let function = Function::load(&context, &compiled.cubin).unwrap();
    let whole = multiprocessors_used(&Share::whole(&context), &function);
    assert_eq!(whole, context.multiprocessors as usize);
    for wanted in [8, 16, 32, 64, 96, 128].map(|wanted| NonZeroU32::new(wanted).unwrap()) {
        let share = Share::kept_to(&context, wanted).unwrap();
        let used = multiprocessors_used(&share, &function);
        assert_eq!(used, share.multiprocessors() as usize, "{wanted} of {whole} were asked for");
        println!("{wanted} asked for, blocks on {used}");
    }
}

#[test]
fn the_kernel_that_says_where_it_runs_compiles() {
    let Ok(compiler) = Compiler::find() else {
        eprintln!("skipped: there is no compiler of kernels here");
        return;
    };
    let options = ["--gpu-architecture=sm_90".to_owned()];
    assert!(compiler.compile("placed.cu", SOURCE, &[], &options).is_ok());
}
