/* SPDX-License-Identifier: Apache-2.0 */
/* What Python sees of the driver, the software card and the ABI. Read by cffi, not by a compiler:
 * "..." lets the C compiler fill in values, sizes and offsets from the headers. */

/* abi/registers.h */
#define TEPI_MAGIC            ...
#define TEPI_ABI_VERSION      ...
#define TEPI_STATUS_READY     ...
#define TEPI_STATUS_FAULT     ...
enum tepi_isa {
    TEPI_ISA_AUTO,
    TEPI_ISA_SCALAR,
    TEPI_ISA_AVX2,
    TEPI_ISA_AVX512VNNI,
    TEPI_ISA_AMXINT8,
    ...
};

/* abi/faults.h */
struct tepi_fault_entry {
    uint64_t time_ns;
    uint32_t code;
    uint32_t info;
    uint32_t generation;
    uint16_t queue;
    uint16_t command_id;
    uint32_t sequence;
    ...;
};
#define TEPI_FAULT_LOG_ENTRIES ...

/* abi/queue.h */
struct tepi_profile_record {
    uint32_t instruction;
    uint32_t node;
    uint64_t elapsed_ns;
    uint64_t macs;
    uint64_t bytes_read;
    uint64_t bytes_written;
    uint32_t code;
    char kernel[...];
    ...;
};

/* abi/program.h */
#define TEPI_PROGRAM_MAGIC     ...
#define TEPI_NONE              ...
#define TEPI_TENSORS_MAX       ...
#define TEPI_INSTRUCTIONS_MAX  ...
#define TEPI_PORTS_MAX         ...
#define TEPI_DIM_MAX           ...
#define TEPI_HALO_MAX          ...
#define TEPI_KERNEL_MAX        ...
#define TEPI_ARENA_MAX         ...
#define TEPI_STEPS_MAX         ...
#define TEPI_VECTOR_SOURCES    ...
#define TEPI_VECTOR_TARGETS    ...
#define TEPI_VECTOR_REGISTERS  ...
#define TEPI_VECTOR_STEPS_MAX  ...
#define TEPI_VECTOR_ROW_MAX    ...
#define TEPI_PROGRAM_BYTES_MAX ...
enum tepi_type {
    TEPI_TYPE_U8,
    TEPI_TYPE_I8,
    TEPI_TYPE_F32,
    TEPI_TYPE_I64,
    TEPI_TYPE_I32,
    TEPI_TYPE_BOOL,
    ...
};
enum tepi_place { TEPI_PLACE_ARENA, TEPI_PLACE_INPUT, TEPI_PLACE_OUTPUT, TEPI_PLACE_CONSTANT, ... };
enum tepi_instruction_code {
    TEPI_OP_FILL,
    TEPI_OP_MAP,
    TEPI_OP_CONV,
    TEPI_OP_ADD,
    TEPI_OP_MUL,
    TEPI_OP_TABLE,
    TEPI_OP_MAXPOOL,
    TEPI_OP_AVGPOOL,
    TEPI_OP_RESIZE,
    TEPI_OP_SOFTMAX,
    TEPI_OP_MATMUL,
    TEPI_OP_LAYERNORM,
    TEPI_OP_VECTOR,
    TEPI_OP_FMATMUL,
    TEPI_OP_GATHER,
    TEPI_OP_RANGE,
    ...
};
struct tepi_program_header {
    uint32_t magic;
    uint16_t abi;
    uint16_t header_bytes;
    uint64_t total_bytes;
    uint32_t crc32;
    uint32_t flags;
    uint32_t tensors;
    uint32_t instructions;
    uint64_t tensors_offset;
    uint64_t instructions_offset;
    uint64_t constants_offset;
    uint64_t constants_bytes;
    uint64_t arena_bytes;
    uint64_t macs;
    uint16_t inputs;
    uint16_t outputs;
    uint32_t reserved[...];
    ...;
};
struct tepi_tensor {
    uint8_t type;
    uint8_t place;
    uint16_t port;
    uint32_t n, h, w, c;
    uint32_t stride_n, stride_h, stride_w;
    uint16_t halo_top, halo_left, halo_bottom, halo_right;
    uint64_t offset;
    float scale;
    int32_t zero_point;
    ...;
};
struct tepi_add_params {
    float ratio_a, ratio_b, fixed;
    int32_t a_offset, b_offset, out_offset;
    uint32_t table;
    uint8_t lo, hi;
    uint8_t reserved[...];
    ...;
};
struct tepi_conv_params {
    uint16_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    uint16_t pad_top, pad_left;
    uint32_t groups;
    uint32_t weights, bias, multiplier;
    uint32_t table;
    uint8_t lo, hi;
    uint8_t residual_first;
    uint8_t reserved;
    uint32_t addend;
    struct tepi_add_params residual;
    ...;
};
struct tepi_mul_params {
    float ratio, zero;
    int32_t a_zero_point, b_zero_point, out_offset;
    uint32_t table;
    uint8_t lo, hi;
    uint8_t reserved[...];
    ...;
};
struct tepi_fill_params {
    uint32_t whole;
    uint32_t value;
    ...;
};
struct tepi_map_params {
    uint32_t rank;
    uint32_t dims[...];
    int32_t stride[...];
    int32_t out_stride[...];
    uint32_t start, out_start;
    uint32_t table;
    uint8_t lo, hi;
    uint8_t reserved[...];
    ...;
};
struct tepi_table_params {
    uint32_t table;
    ...;
};
struct tepi_pool_params {
    uint16_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    uint16_t pad_top, pad_left, pad_bottom, pad_right;
    uint32_t count_include_pad;
    float in_scale, out_scale;
    ...;
};
struct tepi_resize_params {
    uint32_t rows;
    uint32_t columns;
    ...;
};
struct tepi_softmax_params {
    uint32_t table;
    float ratio;
    ...;
};
struct tepi_matmul_params {
    float multiplier;
    uint32_t heads;
    uint8_t a_split, b_split, out_split;
    uint8_t b_transposed;
    uint32_t table;
    uint8_t lo, hi;
    uint8_t reserved[...];
    ...;
};
struct tepi_layernorm_params {
    float epsilon;
    uint32_t gamma, beta;
    ...;
};
enum tepi_vector_code {
    TEPI_VECTOR_LOAD,
    TEPI_VECTOR_STORE,
    TEPI_VECTOR_VALUE,
    TEPI_VECTOR_ADD,
    TEPI_VECTOR_SUB,
    TEPI_VECTOR_MUL,
    TEPI_VECTOR_DIV,
    TEPI_VECTOR_MAX,
    TEPI_VECTOR_MIN,
    TEPI_VECTOR_EQ,
    TEPI_VECTOR_NE,
    TEPI_VECTOR_LT,
    TEPI_VECTOR_LE,
    TEPI_VECTOR_SELECT,
    TEPI_VECTOR_NEG,
    TEPI_VECTOR_ABS,
    TEPI_VECTOR_SQRT,
    TEPI_VECTOR_FLOOR,
    TEPI_VECTOR_CEIL,
    TEPI_VECTOR_ROUND,
    TEPI_VECTOR_EXP,
    TEPI_VECTOR_LOG,
    TEPI_VECTOR_ERF,
    TEPI_VECTOR_TANH,
    TEPI_VECTOR_SIGMOID,
    TEPI_VECTOR_SUM,
    TEPI_VECTOR_MAXOF,
    TEPI_VECTOR_MINOF,
    ...
};
struct tepi_vector_step {
    uint8_t code, out, a, b, c;
    uint8_t reserved[...];
    float value;
    ...;
};
struct tepi_vector_params {
    uint32_t row;
    uint32_t code;
    uint32_t steps;
    uint32_t reserved;
    uint16_t sources[...];
    uint16_t more[...];
    uint16_t reserved2;
    ...;
};
struct tepi_fmatmul_params {
    float scale;
    uint32_t heads;
    uint8_t a_split, b_split, out_split;
    uint8_t b_transposed;
    ...;
};
struct tepi_gather_params {
    uint32_t reserved;
    ...;
};
struct tepi_range_params {
    uint32_t reserved;
    ...;
};
struct tepi_instruction {
    uint8_t code;
    uint8_t flags;
    uint16_t a, b, out;
    uint32_t node;
    uint32_t reserved;
    uint8_t bytes[...];
    ...;
};

/* driver/failure.h, driver/controller.h, driver/loaded.h */
struct tepi_failure {
    uint32_t fault;
    uint32_t info;
    ...;
};
struct tepi_controller_info {
    uint32_t abi_min, abi_max, isa, workers, queues, generation;
    uint64_t opcodes, memory, memory_free, heartbeat, clock_ns;
    uint32_t status, fault_count;
    uint32_t temperature_mc, power_mw, ecc_corrected;
    uint64_t executed;
    ...;
};
struct tepi_timings {
    uint64_t queue_ns, copy_in_ns, compute_ns, copy_out_ns, host_ns;
    ...;
};

/* card/faults.h */
enum tepi_planned_kind {
    TEPI_PLANNED_HANG,
    TEPI_PLANNED_SLOW,
    TEPI_PLANNED_WRONG_GENERATION,
    TEPI_PLANNED_CORRUPT_COMPLETION,
    TEPI_PLANNED_DMA_ERROR,
    TEPI_PLANNED_THERMAL_THROTTLE, TEPI_PLANNED_THERMAL_SHUTDOWN,
    TEPI_PLANNED_RESET_FAILS, TEPI_PLANNED_FIRMWARE_ASSERT,
    TEPI_PLANNED_BIT_FLIP, TEPI_PLANNED_BIT_FLIP_UNDETECTED, TEPI_PLANNED_REMOVAL,
    ...
};
enum tepi_planned_trigger {
    TEPI_PLANNED_ON_COMMAND,
    TEPI_PLANNED_ON_EXECUTE,
    TEPI_PLANNED_ON_LOAD,
    ...
};
struct tepi_planned_fault {
    uint32_t kind;
    uint32_t trigger;
    uint64_t after;
    uint32_t count;
    uint32_t factor;
    uint64_t ns;
    uint32_t repeat;
    ...;
};

/* binding/card_glue.h */
struct tepi_fault_row {
    uint32_t code;
    const char *name, *severity, *grpc, *meaning, *remedy;
    ...;
};
extern const struct tepi_fault_row tepi_fault_rows[];
extern const uint32_t tepi_fault_row_count;

struct tepi_slot_card;
struct tepi_held_program;
struct tepi_run;
struct tepi_ended {
    struct tepi_run *run;
    ...;
};

int tepi_slot_open(uint32_t workers, uint64_t memory_bytes, uint32_t isa,
                   struct tepi_slot_card **card, struct tepi_failure *failure);
int tepi_slot_connect(const char *path, struct tepi_slot_card **card, struct tepi_failure *failure);
struct tepi_bus_reason {
    char what[...];
    char remedy[...];
    ...;
};
int tepi_slot_vfio(const char *address, struct tepi_slot_card **card,
                   struct tepi_bus_reason *reason, struct tepi_failure *failure);
void tepi_slot_shut(struct tepi_slot_card *card);
void tepi_slot_release(struct tepi_slot_card *card);
void tepi_slot_detach(struct tepi_slot_card *card);
int tepi_slot_attach(struct tepi_slot_card *card, struct tepi_failure *failure);
int tepi_slot_reset(struct tepi_slot_card *card, struct tepi_failure *failure);
int tepi_slot_inject(struct tepi_slot_card *card, uint32_t fault, uint32_t info);
int tepi_slot_plan_faults(struct tepi_slot_card *card, const struct tepi_planned_fault *faults,
                          uint32_t count);
uint32_t tepi_slot_busy(struct tepi_slot_card *card, uint64_t *busy_ns, uint32_t most);
bool tepi_slot_alive(struct tepi_slot_card *card);
uint32_t tepi_slot_epoch(struct tepi_slot_card *card);
int tepi_slot_info(struct tepi_slot_card *card, struct tepi_controller_info *info);
uint32_t tepi_slot_faults(struct tepi_slot_card *card, struct tepi_fault_entry *log, uint32_t most);
int tepi_slot_nop(struct tepi_slot_card *card, struct tepi_failure *failure);
int tepi_slot_eventfd(struct tepi_slot_card *card);
uint32_t tepi_slot_collect(struct tepi_slot_card *card, struct tepi_ended *ended, uint32_t most);

void tepi_give_back(void);
struct tepi_card_server;
int tepi_server_open(const char *path, uint32_t workers, uint64_t memory_bytes, uint32_t isa,
                     struct tepi_card_server **server);
void tepi_server_close(struct tepi_card_server *server);
int tepi_server_plan_faults(struct tepi_card_server *server,
                            const struct tepi_planned_fault *faults, uint32_t count);
void tepi_server_detach(struct tepi_card_server *server);
void tepi_server_attach(struct tepi_card_server *server);
uint32_t tepi_server_clients(struct tepi_card_server *server);

int tepi_held_open(struct tepi_slot_card *card, const void *image, uint64_t bytes, bool file,
                   struct tepi_held_program **program, struct tepi_failure *failure);
int tepi_held_reload(struct tepi_held_program *program, const void *image, uint64_t bytes,
                     bool file, struct tepi_failure *failure);
void tepi_held_unload(struct tepi_held_program *program);
void tepi_held_release(struct tepi_held_program *program);
uint32_t tepi_held_epoch(struct tepi_held_program *program);
uint32_t tepi_held_inputs(struct tepi_held_program *program);
uint32_t tepi_held_outputs(struct tepi_held_program *program);
uint64_t tepi_held_port_bytes(struct tepi_held_program *program, uint32_t port);
int tepi_held_run(struct tepi_held_program *program, void **ports, uint32_t batch,
                  uint64_t deadline_ns, struct tepi_timings *timings, struct tepi_failure *failure);
int tepi_held_profile(struct tepi_held_program *program, void **ports, uint32_t batch,
                      struct tepi_profile_record *records, uint32_t count,
                      struct tepi_timings *timings, struct tepi_failure *failure);
int tepi_held_start(struct tepi_held_program *program, void **ports, uint32_t batch,
                    uint64_t deadline_ns, struct tepi_run **run, struct tepi_failure *failure);
void tepi_held_abort(struct tepi_run *run);
void tepi_held_expire(struct tepi_held_program *program, struct tepi_run *run);
int tepi_held_end(struct tepi_ended *ended, bool discard, struct tepi_timings *timings,
                  struct tepi_failure *failure);
