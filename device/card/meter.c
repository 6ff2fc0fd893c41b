/* SPDX-License-Identifier: Apache-2.0 */
/* What the card says of its work and its health: executed commands, busy workers, power and
 * temperature. The last two are a model: they follow how busy the workers were since the registers
 * were last read, and the faults that have to do with heat. */
#include "card/state.h"

#define IDLE_MW          3000u
#define WORKER_MW        2500u /* of one that is busy all the time */
#define AMBIENT_MC       35000u
#define MC_PER_W         2000u
#define THROTTLED_MC     95000u
#define SHUTDOWN_MC      110000u
#define MEASURE_LEAST_NS 1000000u /* shorter, and the share of busy time means nothing */

uint64_t tepi_card_busy_ns(struct tepi_card *card, uint32_t worker)
{
    return atomic_load_explicit(&card->units[worker].busy_ns, memory_order_relaxed);
}

uint64_t tepi_card_executed(struct tepi_card *card)
{
    uint64_t executed = 0;
    for (uint32_t i = 0; i < card->config.workers; i++) {
        executed += atomic_load_explicit(&card->units[i].executed, memory_order_relaxed);
    }
    return executed;
}

uint32_t tepi_card_power_mw(struct tepi_card *card)
{
    uint64_t busy = 0;
    for (uint32_t i = 0; i < card->config.workers; i++) {
        busy += tepi_card_busy_ns(card, i);
    }
    pthread_mutex_lock(&card->meter_lock);
    const uint64_t now = tepi_card_clock_ns();
    const uint64_t elapsed = now - card->metered_ns;
    if (elapsed >= MEASURE_LEAST_NS) {
        const uint64_t share = (busy - card->metered_busy_ns) * 1000 / elapsed;
        const uint64_t most = (uint64_t)card->config.workers * 1000;
        card->power_mw = (uint32_t)(IDLE_MW + WORKER_MW * (share < most ? share : most) / 1000);
        card->metered_ns = now;
        card->metered_busy_ns = busy;
    }
    const uint32_t power = card->power_mw;
    pthread_mutex_unlock(&card->meter_lock);
    return power;
}

uint32_t tepi_card_temperature_mc(struct tepi_card *card)
{
    if (atomic_load(&card->faults.overheated)) {
        return SHUTDOWN_MC;
    }
    const uint32_t model = AMBIENT_MC + tepi_card_power_mw(card) / 1000 * MC_PER_W;
    if (atomic_load(&card->faults.throttle)) {
        return model > THROTTLED_MC ? model : THROTTLED_MC;
    }
    return model < THROTTLED_MC ? model : THROTTLED_MC - 1;
}
