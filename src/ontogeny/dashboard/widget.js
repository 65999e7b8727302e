// One element for all widgets of dashboard.js: it hands them their options, and their events to the server.
export default {
  template: "<div></div>",
  props: {kind: String, options: Object},
  mounted() {
    this.widget = window.ontogeny[this.kind](this.$el, this.options, (name, value) => this.$emit("said", {name, value}));
  },
  watch: {
    options(next) {
      this.widget.update(next);
    },
  },
  unmounted() {
    if (this.widget.destroy) this.widget.destroy();
  },
};
